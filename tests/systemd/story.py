"""The story of one box, from its first day on: every check, in order, one line each. Started by ``run.sh``.

    python3 -m tests.systemd.story KEEPER-PROCESS ROOT

The order matters, but a check that fails does not stop the others. Exit code 1 if one failed.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from tests.systemd import checks, installing
from tests.systemd.box import Box

STORY = (
    installing.chapter_installing,
    installing.rig_runs,
    installing.chapter_configuration,
    installing.by_hand,
    checks.verified,
    checks.exposed_little,
    checks.devices,
    checks.clock_asked,
    checks.names_resolved,
    installing.look_and_change,
    installing.shortened,
    checks.active_only_when_ready,
    checks.status_text,
    checks.readings_arrive,
    checks.second_daemon,
    checks.kill_9,
    checks.kill_stop,
    checks.hang,
    checks.reloaded,
    checks.stopped,
    checks.nothing_lost,
    checks.bad_configuration,
    checks.meters_absent,
    checks.no_network,
    checks.rebooted,
    installing.dry_run,
    installing.upgraded,
    installing.upgraded_stopped,
    installing.upgrade_fails,
    installing.not_over_data,
    installing.two_pairs,
    checks.nothing_lost,
    installing.password_kept,
    installing.uninstalled,
    installing.in_one_step,
    installing.purged_and_anew,
    installing.secret_by_systemd,
)


def main() -> int:
    """Do every check. Return the exit code."""
    box = Box(int(sys.argv[1]), Path(sys.argv[2]))
    counts: Counter[str] = Counter()
    for check in STORY:
        begin_mono_s = time.monotonic()
        text = (check.__doc__ or "").strip()
        is_step = text.startswith("(")
        verdict = "ok"
        try:
            check(box)
        except checks.Skip as exc:
            verdict, text = "skip", f"{text} ({exc})"
        except (AssertionError, OSError, subprocess.SubprocessError, LookupError, TypeError, ValueError) as exc:
            verdict, text = "FAIL", f"{text}: {type(exc).__name__}: {exc}{box.evidence()}"
        if not is_step or verdict != "ok":
            counts[verdict] += 1
        print(f"{verdict:4} {text} [{time.monotonic() - begin_mono_s:.1f} s]", flush=True)
    print(f"{counts['ok']} passed, {counts['FAIL']} failed, {counts['skip']} skipped")
    return 1 if counts["FAIL"] else 0


if __name__ == "__main__":
    sys.exit(main())
