"""What log_setup.py promises: the line format, no forged line, no secret, and no log call that raises."""

from __future__ import annotations

import base64
import contextlib
import errno
import io
import json
import logging
import os
import re
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import log_setup
from log_setup import LOG_NAME, LineFormatter, LogFile, SecretFilter, reset_logging, set_up_logging

SECRET = "pä ss%&w+\"o'r\\d/~"
logger = logging.getLogger("aretas_reporter")


@pytest.fixture(autouse=True)
def _put_back() -> Iterator[None]:
    yield
    reset_logging()


def lines_of(folder: Path) -> list[str]:
    return (folder / LOG_NAME).read_text(encoding="utf-8").splitlines()


def one_record(message: object, *args: object) -> logging.LogRecord:
    return logging.LogRecord("name", logging.INFO, "file.py", 1, message, args, None)


def shown(hide: SecretFilter, message: object, *args: object) -> str:
    record = one_record(message, *args)
    assert hide.filter(record)
    return LineFormatter().format(record)


def test_the_line_format(tmp_path: Path) -> None:
    console = io.StringIO()
    set_up_logging(tmp_path, level=logging.INFO, secrets=(), console=console)
    logger.info("51.2 V, -3.4 Ω")
    logger.debug("not this")
    (line,) = lines_of(tmp_path)
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} [+-]\d{4} - aretas_reporter - INFO - 51\.2 V, -3\.4 Ω", line
    )
    assert console.getvalue() == line + "\n"


@pytest.mark.skipif(not hasattr(time, "tzset"), reason="the time zone of a process is a matter of POSIX")
@pytest.mark.parametrize(
    ("zone", "moment", "expected"),
    [
        ("UTC0", 1795514741.1239, "2026-11-24 10:05:41,123 +0000"),
        ("CET-1CEST,M3.5.0,M10.5.0/3", 1795514741.1239, "2026-11-24 11:05:41,123 +0100"),
        ("CET-1CEST,M3.5.0,M10.5.0/3", 1792888199.0, "2026-10-25 02:29:59,000 +0200"),
        ("CET-1CEST,M3.5.0,M10.5.0/3", 1792891799.9996, "2026-10-25 02:29:59,999 +0100"),
        ("PST8", 0.0, "1969-12-31 16:00:00,000 -0800"),
    ],
)
def test_local_time_with_its_offset(monkeypatch: pytest.MonkeyPatch, zone: str, moment: float, expected: str) -> None:
    record = one_record("text")
    record.created = moment
    with monkeypatch.context() as patch:
        patch.setenv("TZ", zone)
        time.tzset()
        line = LineFormatter().format(record)
    time.tzset()
    assert line == f"{expected} - name - INFO - text"


def test_setting_up_again_replaces_and_resetting_removes(tmp_path: Path) -> None:
    before = list(logging.getLogger().handlers)
    for _ in range(3):
        set_up_logging(tmp_path, level=logging.INFO, secrets=(), console=io.StringIO())
    logger.info("once")
    assert len(lines_of(tmp_path)) == 1
    reset_logging()
    assert logging.getLogger().handlers == before


def test_a_message_from_outside_forges_no_line(tmp_path: Path) -> None:
    for handler in logging.getLogger().handlers[:]:  # pytest's own cannot pass half a surrogate pair on
        logging.getLogger().removeHandler(handler)
    set_up_logging(tmp_path, level=logging.INFO, secrets=(), console=None)
    logger.info("said %s", "no\n2026-11-24 10:05:41,123 +0000 - root - INFO - all is well\r\x1b[2J\x85\u2028\0 \ud800")
    (line,) = (tmp_path / LOG_NAME).read_bytes().decode().split("\n")[:-1]
    assert line.endswith(
        "said no\\n2026-11-24 10:05:41,123 +0000 - root - INFO - all is well\\r\\x1b[2J\\x85\\u2028\\x00 \\ud800"
    )


def test_a_traceback_keeps_its_lines_indented_and_forges_none(tmp_path: Path) -> None:
    set_up_logging(tmp_path, level=logging.INFO, secrets=("hunter2secret",), console=None)
    try:
        raise ValueError("hunter2secret\n2026-11-24 10:05:41,123 +0000 - root - INFO - forged\x1b")
    except ValueError:
        logger.exception("failed", stack_info=True)
    first, *rest = lines_of(tmp_path)
    assert first.endswith(" - ERROR - failed")
    assert len(rest) > 4
    assert all(line.startswith("    ") for line in rest)
    assert "    ValueError: ***" in rest
    assert "hunter2secret" not in "".join(rest)
    assert "\x1b" not in "".join(rest)


SPELLINGS: list[Callable[[str], str]] = [
    lambda s: s,
    quote,
    lambda s: quote(s, safe=""),
    lambda s: quote(s, safe="!#$%&'()*+,/:;=?@[]~"),
    lambda s: re.sub("%..", lambda m: m[0].lower(), quote(s)),
    lambda s: quote(quote(s)),
    quote_plus,
    lambda s: quote_plus(s, safe="/"),
    repr,
    lambda s: repr(repr(s)),
    ascii,
    lambda s: repr(s.encode()),
    json.dumps,
    lambda s: json.dumps(s, ensure_ascii=False),
    lambda s: json.dumps(json.dumps(s)),
    lambda s: json.dumps(s).replace("/", "\\/"),
    lambda s: base64.b64encode(s.encode()).decode(),
    lambda s: base64.urlsafe_b64encode(s.encode()).decode(),
    lambda s: base64.b64encode(f"u:{s}".encode()).decode(),
    lambda s: base64.b64encode(f"us:{s}:more".encode()).decode(),
    lambda s: base64.b64encode(f"use:{s}!".encode()).decode(),
]


@pytest.mark.parametrize("spell", SPELLINGS)
@pytest.mark.parametrize(
    "secret", [SECRET, "hunter2secret", "中文密码🔑", "x  y", "\\\\\\\\", "%41%42", "schön", "pass1"]
)
def test_a_secret_is_hidden_in_every_spelling(spell: Callable[[str], str], secret: str) -> None:
    text = shown(SecretFilter([secret]), "before <%s> after", spell(secret))
    assert "***" in text
    assert text.partition("before ")[2].startswith("<")
    assert spell(secret).strip("\"'b") not in text


@settings(max_examples=300, deadline=None)
@given(
    secret=st.text(min_size=4, max_size=30).filter(lambda text: not log_setup.SHORT_WORD.fullmatch(text)),
    spell=st.sampled_from(SPELLINGS),
    around=st.tuples(st.text(max_size=5), st.text(max_size=5)),
)
def test_any_secret_is_hidden_in_any_spelling(
    secret: str, spell: Callable[[str], str], around: tuple[str, str]
) -> None:
    secret = secret.encode("utf-8", "replace").decode()
    assert "***" in SecretFilter([secret]).hide(spell(secret).join(around))


@pytest.mark.parametrize(
    ("line", "rest"),
    [
        ("GET /rest/authentication/g?username=jane&password=abc HTTP/1.1", "&password=*** HTTP/1.1"),
        ("password=abc&username=jane", "password=***&username=jane"),
        ("next%3Fpassword%3Dabc", "password%3D***"),
        ("ApiSettings(username='jane', password='a\\'bc d', x=1)", "password=***, x=1)"),
        ('{"username": "jane", "password": "abc", "x": 1}', '"password": ***, "x": 1}'),
        ("{'redis_authpw': 'abc'}", "{'redis_authpw': ***}"),
        ('"{\\"password\\": \\"abc\\"}"', "***"),
        ("API_PASSWORD = abc", "API_PASSWORD = ***"),
        ("Authorization: Bearer abc", "Authorization: Bearer ***"),
        ("{'Authorization': 'Bearer abc', 'x': 1}", "{'Authorization': 'Bearer ***', 'x': 1}"),
        ("authorization: Basic abc", "authorization: Basic ***"),
        ("('Authorization', 'abc')", "('Authorization', '***')"),
        ("sent Bearer abc to it", "sent Bearer *** to it"),
        ("AUTH abc", "AUTH ***"),
        ("AUTH jane abc", "AUTH ***"),
        ("('AUTH', 'jane', 'abc')", "('AUTH', '***"),
        (r"b'*2\r\n$4\r\nAUTH\r\n$3\r\nabc\r\n'", r"AUTH\r\n***"),
        ("redis://jane:abc@localhost:6379/0", "redis://jane:***@localhost:6379/0"),
    ],
)
def test_what_gives_a_secret_away_is_hidden_whatever_its_length(line: str, rest: str) -> None:
    for secrets in ((), ("abc",)):
        text = shown(SecretFilter(secrets), line)
        assert rest in text
        assert "abc" not in text.partition(" - INFO - ")[2]


@pytest.mark.parametrize(
    "line",
    [
        "[DEFAULT] API_PASSWORD is missing: the password of your Aretas account",
        "the log-in was refused: user name or password is wrong",
        "the token has expired: a new one is asked for",
        "51.23 V, -3.40 A, -0.174 kW; delivered 3, waiting 0",
        'https://iot.aretas.ca:443 "POST /rest/ingest/std/batch HTTP/1.1" 200 38',
    ],
)
def test_what_an_operator_reads_stays(line: str) -> None:
    assert shown(SecretFilter(["ab", "hunter2secret"]), line).endswith(line)


def test_a_short_secret_does_not_blacken_every_word() -> None:
    assert shown(SecretFilter(["a", "", "V"]), "a battery at 51 V").endswith("a battery at 51 V")


@pytest.mark.parametrize("secret", ["cloud", "wrong", "schön"])
@pytest.mark.parametrize(
    "where",
    [
        "{}",
        "ValueError: {}",
        "x\n  {}\r\ny",
        "('jane', '{}')",
        '{{"p": "{}"}}',
        '"{{\\"p\\": \\"{}\\"}}"',
        "b'{}'",
        "GET /g?p={}&x=1",
        "next%3Fp%253D{}%26x",
        "p = {}",
        "p={},q",
        "jane:{}",
        "redis://jane:{}@h",
        "API_PASSWORD = {} x",
        "password=x{}",
        "Authorization: Bearer {}",
        "AUTH jane {}",
        "AUTH\r\n$4\r\njane\r\n$5\r\n{}\r\n",
    ],
)
def test_a_short_word_is_hidden_where_it_stands_as_a_value(secret: str, where: str) -> None:
    for spell in (str, quote, lambda text: ascii(text)[1:-1]):
        assert spell(secret) not in SecretFilter([secret]).hide(where.format(spell(secret)))


@pytest.mark.parametrize("secret", ["cloud", "wrong"])
def test_a_short_word_is_hidden_in_base64(secret: str) -> None:
    for before in ("", "j", "ja", "jane:"):
        encoded = base64.b64encode(f"{before}{secret}".encode()).decode()
        assert "***" in SecretFilter([secret]).hide(f"basic {encoded} x")


@pytest.mark.parametrize("secret", ["cloud", "meter", "wrong", "voltage"])
@pytest.mark.parametrize(
    "line",
    [
        "51.23 V, -3.40 A, -0.174 kW; cloud: 3 delivered, 0 waiting",
        "cloud: refused: user name or password is wrong; check them, 'wrong password' says the cloud",
        "voltage meter: no answer after 1.0 s; voltage 51.2 V",
        '  File "app/cloud/voltage.py", line 3, in read_meter',
        "thread 'meter-2' = cloudy, meters=2, wrongly:voltages",
    ],
)
def test_a_short_word_stays_in_a_sentence_where_nothing_tells_that_it_is_the_password(secret: str, line: str) -> None:
    assert SecretFilter([secret]).hide(line) == line


def test_secrets_in_arguments_exceptions_objects(tmp_path: Path) -> None:
    console = io.StringIO()
    set_up_logging(tmp_path, level=logging.DEBUG, secrets=[SECRET], console=console)
    logger.debug("%s %r", SECRET, {"k": SECRET})
    logger.error(ValueError(SECRET))
    logger.info({"password": SECRET})
    try:
        try:
            raise OSError(errno.EIO, SECRET)
        except OSError as error:
            raise RuntimeError(f"https://x/?p={quote_plus(SECRET)}") from error
    except RuntimeError:
        logger.exception("both")
    text = console.getvalue() + (tmp_path / LOG_NAME).read_text(encoding="utf-8")
    assert text.count("***") >= 10
    assert not any(spell(SECRET) in text for spell in SPELLINGS)


def test_a_token_is_hidden_from_when_it_is_added_and_tokens_do_not_pile_up(tmp_path: Path) -> None:
    hide = set_up_logging(tmp_path, level=logging.INFO, secrets=["hunter2secret"], console=None)
    for number in range(1000):
        hide.add(f"token-number-{number:04}")
    logger.info("token-number-0999 token-number-0999 hunter2secret")
    assert lines_of(tmp_path)[0].endswith("*** *** ***")
    assert len(hide._patterns) == 17


def test_tokens_that_are_forgotten_leave_no_memory_behind() -> None:
    """A pattern of a token of usual length has 40 kB; re would keep those of the last 512 log-ins."""
    hide = SecretFilter(["s3cret"])
    for number in range(20):
        hide.add(f"{number:04}" * 64)
    tracemalloc.start()
    try:
        for number in range(20, 60):
            hide.add(f"{number:04}" * 64)
        assert tracemalloc.get_traced_memory()[0] < 900_000  # 16 are remembered; all 40 would be 1.7 MB
    finally:
        tracemalloc.stop()


def test_a_long_token_is_hidden_to_its_end() -> None:
    token = "".join(f"{number:x}." for number in range(2000))
    assert SecretFilter([token]).hide(f"got {token} back") == "got *** back"


def test_one_secret_inside_another() -> None:
    assert SecretFilter(["abc4", "abc4efgh"]).hide("xabc4efghx abc4x") == "x***x ***x"


def test_a_record_is_changed_once_however_many_handlers_it_meets() -> None:
    hide = SecretFilter(["hidden-by", "****"])
    record = one_record("%s password=%s", "hidden-by", "*****")
    assert hide.filter(record)
    first = (record.msg, record.args, record.exc_text)
    assert hide.filter(record)
    assert (record.msg, record.args, record.exc_text) == first
    assert record.args is None


def test_adding_and_logging_from_many_threads(tmp_path: Path) -> None:
    hide = set_up_logging(tmp_path, level=logging.INFO, secrets=["hunter2secret"], console=None)

    def work(number: int) -> None:
        for turn in range(50):
            token = f"token-{number}-{turn % 2}-end"  # 16 in all, as many as are remembered
            hide.add(token)
            logger.info("%s with hunter2secret", token)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = lines_of(tmp_path)
    assert len(lines) == 400
    assert all(line.endswith(" - *** with ***") for line in lines)


class Awkward:
    def __str__(self) -> str:
        raise RuntimeError("no text")


@pytest.mark.parametrize(
    ("message", "args"),
    [
        ("%d hunter2secret", ("hunter2secret",)),
        ("%s %s", ("one",)),
        ("%(x)s", ("y",)),
        ("%s", (Awkward(),)),
        (Awkward(), ()),
    ],
)
def test_a_message_that_cannot_be_formatted_does_not_raise(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    message: object,
    args: tuple[object, ...],
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(logging.getLogger(), "handlers", [])  # pytest's own handlers do raise
        set_up_logging(tmp_path, level=logging.INFO, secrets=["hunter2secret"], console=None)
        logger.info(message, *args)
        reset_logging()
    assert "cannot be formatted" in lines_of(tmp_path)[0]
    assert "hunter2secret" not in lines_of(tmp_path)[0] + capsys.readouterr().err


class BrokenConsole(io.StringIO):
    def write(self, text: str) -> int:
        raise RuntimeError("gone")


def test_logging_s_own_error_output_shows_no_secret(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logging(tmp_path, level=logging.INFO, secrets=["hunter2secret"], console=BrokenConsole())
    message, argument = f"a hunter{2}secret %s", f"hunter{2}secret"  # the caller's line is quoted
    logger.info(message, argument)
    err = capsys.readouterr().err
    assert "RuntimeError" in err
    assert "hunter2secret" not in err
    assert lines_of(tmp_path)[0].endswith("a *** ***")


def test_a_folder_that_is_missing_and_comes_later(tmp_path: Path) -> None:
    console, folder = io.StringIO(), tmp_path / "later"
    set_up_logging(folder, level=logging.INFO, secrets=(), console=console)
    for number in range(3):
        logger.info("line %d", number)
    assert console.getvalue().count("cannot be written") == 1
    assert console.getvalue().count("aretas_reporter - INFO") == 3
    folder.mkdir()
    logger.info("at last")
    logger.info("and on")
    first, second, third = lines_of(folder)
    assert first.endswith("at last")
    assert "lines are missing above" in second
    assert third.endswith("and on")
    assert "is written again" in console.getvalue()


def test_a_terminal_that_is_gone_is_left_alone_and_the_file_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reader, writer = os.pipe()
    with os.fdopen(writer, "w") as console:
        set_up_logging(tmp_path, level=logging.INFO, secrets=(), console=console)
        os.close(reader)  # as `| head` does
        for number in range(3):
            logging.getLogger("x").info("line %d", number)
        reset_logging()
        with contextlib.suppress(BrokenPipeError):
            console.close()
    assert (tmp_path / LOG_NAME).read_text().count("line") == 3
    assert capsys.readouterr().err == ""


def test_without_a_console_it_is_said_on_stderr(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logging(tmp_path / "missing", level=logging.INFO, secrets=(), console=None)
    logger.info("one")
    logger.info("two")
    (line,) = capsys.readouterr().err.splitlines()
    assert "log_setup - WARNING - the log file" in line


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full is a matter of Linux")
def test_a_full_disk(tmp_path: Path) -> None:
    (tmp_path / LOG_NAME).symlink_to("/dev/full")
    console = io.StringIO()
    set_up_logging(tmp_path, level=logging.INFO, secrets=(), console=console)
    for _ in range(2000):
        logger.info("x" * 100)
    assert console.getvalue().count("No space left") == 1
    (tmp_path / LOG_NAME).unlink()
    logger.info("space again")
    assert "space again" in lines_of(tmp_path)[0]


def test_a_full_disk_in_the_middle_of_a_file_and_in_a_rotation(tmp_path: Path) -> None:
    """A file-size limit is a disk that is full for one process: writes and closes of the file fail for real."""
    program = """
import io, logging, pathlib, resource, signal, sys
import log_setup
log_setup.LOG_BYTES = 6000
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
folder = pathlib.Path(sys.argv[1])
console = io.StringIO()
log_setup.set_up_logging(folder, level=logging.INFO, secrets=(), console=console)
limits = resource.getrlimit(resource.RLIMIT_FSIZE)
logging.info("before")
for size in (5000, 7000):
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, limits[1]))
    for number in range(200):
        logging.info("lost or not %s", "y" * 100)
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    for number in range(100):
        logging.info("after %s", "z" * 100)
print(console.getvalue().count("cannot be written"), console.getvalue().count("is written again"))
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)],
        capture_output=True, text=True, timeout=20, cwd=Path(log_setup.__file__).parent, check=True,
    )  # fmt: skip
    assert done.stderr == ""
    assert done.stdout.split()[0] == done.stdout.split()[1]
    assert int(done.stdout.split()[0]) >= 1
    assert lines_of(tmp_path)[-1].endswith("z" * 100)


@pytest.mark.parametrize("how", ["delete", "move"])
def test_a_file_that_somebody_deletes_or_moves_is_begun_anew(tmp_path: Path, how: str) -> None:
    set_up_logging(tmp_path, level=logging.INFO, secrets=(), console=None)
    logger.info("before")
    path = tmp_path / LOG_NAME
    if how == "move":
        path.rename(tmp_path / "kept")
    else:
        path.unlink()
    logger.info("after")
    assert [line.rsplit(" - ", 1)[1] for line in lines_of(tmp_path)] == ["after"]


def test_a_rotation_that_never_works_does_not_fill_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(log_setup, "LOG_BYTES", 20_000)
    set_up_logging(tmp_path, level=logging.INFO, secrets=(), console=None)
    for number in range(1, 6):
        (tmp_path / f"{LOG_NAME}.{number}").mkdir()
        (tmp_path / f"{LOG_NAME}.{number}" / "in the way").touch()
    for number in range(1000):
        logger.info("line %d %s", number, "x" * 100)
    assert (tmp_path / LOG_NAME).stat().st_size < 60_000
    assert lines_of(tmp_path)[-1].count("line 999")
    said = capsys.readouterr().err.splitlines()
    emptied = sum("was emptied" in line for line in said)
    assert emptied >= 2
    assert len(said) <= 2 * emptied + 1
    assert "was emptied" in lines_of(tmp_path)[0]


def test_rotation_keeps_five_old_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_setup, "LOG_BYTES", 1000)
    set_up_logging(tmp_path, level=logging.INFO, secrets=(), console=None)
    for number in range(200):
        logger.info("line %d", number)
    assert sorted(path.name for path in tmp_path.iterdir()) == [LOG_NAME, *(f"{LOG_NAME}.{n}" for n in range(1, 6))]
    assert all(path.stat().st_size <= 1000 for path in tmp_path.iterdir())
    assert lines_of(tmp_path)[-1].endswith("line 199")


def test_a_rotation_that_fails_goes_on_in_the_same_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_setup, "LOG_BYTES", 1000)
    (tmp_path / f"{LOG_NAME}.4").touch()
    (tmp_path / f"{LOG_NAME}.5").mkdir()  # cannot be removed as a file
    console = io.StringIO()
    set_up_logging(tmp_path, level=logging.INFO, secrets=(), console=console)
    for number in range(30):
        logger.info("line %d", number)
    assert console.getvalue().count("cannot be rotated") == 1
    assert [line.rpartition("line ")[2] for line in lines_of(tmp_path)] == [str(number) for number in range(30)]


def test_the_file_is_ten_megabytes_and_opened_by_its_first_line(tmp_path: Path) -> None:
    set_up_logging(tmp_path, level=logging.INFO, secrets=(), console=None)
    (file,) = (handler for handler in logging.getLogger().handlers if isinstance(handler, LogFile))
    assert (file.maxBytes, file.backupCount) == (10_000_000, 5)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "text",
    [
        "A" * 200_000,
        "\\" * 200_000,
        "password=" * 20_000,
        "://a:" * 40_000,
        "AUTH '" * 30_000,
        "\n" * 200_000,
        "=cloud " * 30_000,
    ],
)
def test_a_huge_text_from_a_server_does_not_hold_a_thread_up(text: str) -> None:
    began = time.process_time()
    SecretFilter([SECRET, "hunter2secret", "cloud"]).hide(text)
    assert time.process_time() - began < 5
