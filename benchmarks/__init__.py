"""Measurements of the whole daemon against its promises; see README.md in this folder. Run by hand, never by CI."""
