"""Uploading: listed before sent, no secret leaves, everything is read back, the list is last; against a real server on
loopback that lives in `.venv-s3`."""
import hashlib
import http.client
import json
import os
import random
import socket
import subprocess
import time
import traceback
from pathlib import Path

import pytest

from cryptolab.config import CryptolabError, DataError, ModelError, SettingsError, SourceError
from cryptolab.runs.upload import upload, upload_text

ROOT = Path(__file__).parents[1]
SERVER = ROOT / ".venv-s3" / "bin" / "moto_server"
# the server reads the name and, unless told to, checks no signature
SOMEBODY = "AWS4-HMAC-SHA256 Credential=somebody/20250101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0"
KEY, SECRET = "AKIA" + "Q3" * 8, "t" + "9aB/" * 9 + "xyz"
FILES = {
    "report.html": b"<p>a report", "result.json": b'{"system": "v9"}', "empty.txt": b"",
    "model/weights.bin": bytes(range(256)) * 8, "model/a name with ü, % and #.txt": b"odd",
}


def free_port():
    "A port on which nobody listens now."
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    "Plain HTTP to the server, beside the library and its client."

    def __init__(self, port):
        self.port = port

    def ask(self, method, path, body=b""):
        "One request: status and content."
        line = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            line.request(method, path, body, {"Content-Type": "application/octet-stream", "Authorization": SOMEBODY})
            answer = line.getresponse()
            return answer.status, answer.read()
        finally:
            line.close()

    def get(self, path):
        "Content of an object; None where there is none."
        status, content = self.ask("GET", path)
        return content if status == 200 else None


@pytest.fixture(scope="module")
def server():
    "A server that answers."
    if not SERVER.exists():
        pytest.skip("no server to upload to: `make .venv-s3/.stamp` makes its environment")
    port = free_port()
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "MOTO_", "PYTHON"))}
    process = subprocess.Popen([SERVER, "-H", "127.0.0.1", "-p", str(port)], env=clean, stdin=subprocess.DEVNULL,
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        made, until = Server(port), time.monotonic() + 60
        while True:
            try:
                assert made.ask("GET", "/moto-api/data.json")[0] == 200
                break
            except OSError:
                assert process.poll() is None and time.monotonic() < until, "the server does not answer"
                time.sleep(0.1)
        yield made
    finally:
        process.terminate()
        process.wait(20)


@pytest.fixture
def bucket(server, monkeypatch):
    "A fresh bucket `lab`, and an environment that leads to it."
    server.ask("POST", "/moto-api/reset")
    assert server.ask("PUT", "/lab")[0] == 200
    login(monkeypatch, server.port)
    return server


@pytest.fixture
def away(monkeypatch):
    "An environment that leads to a port on which nobody listens."
    login(monkeypatch, free_port())


def login(monkeypatch, port):
    "Point the environment to a server on this machine."
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in {
        "AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_REGION": "us-east-1", "AWS_ALLOW_HTTP": "true",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}", "NO_PROXY": "127.0.0.1",
    }.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def run(tmp_path):
    "A finished folder: an empty file, a binary one, an odd name, and what stays at home."
    folder = tmp_path / "BTCUSDT-1h-v9"
    for name, content in (FILES | {".env": b"mine", "model/.cache/x": b"mine"}).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def told(error, kind, words):
    "The words of an error; nothing of login or address in it, nor in what a program would print of it."
    assert isinstance(error, kind) and words in str(error), repr(error)
    shown = "".join(traceback.format_exception(error)) + repr(error.__context__) + repr(error.__cause__)
    for secret in (KEY, SECRET, os.environ.get("AWS_ENDPOINT_URL") or SECRET):
        assert secret not in shown and secret not in str(error)
    assert error.__context__ is None and error.__cause__ is None
    return str(error)


def refusal(*args, **options):
    "What `upload` raises."
    with pytest.raises(CryptolabError) as e:
        upload(*args, **options)
    return e.value


def sum_of(content):
    "SHA-256 in hex."
    return hashlib.sha256(content).hexdigest()


# ---- against the server

def test_every_object_arrives_and_the_list_is_last(bucket, run):
    lines = []
    done = upload(run, "s3://lab/reports/v9", dry_run=False, log=lines.append)
    stored = json.loads(bucket.get("/lab/reports/v9/upload.json"))["files"]
    assert stored == {name: {"bytes": len(c), "sha256": sum_of(c)} for name, c in sorted(FILES.items())}
    assert bucket.get("/lab/reports/v9/model/weights.bin") == FILES["model/weights.bin"]
    assert bucket.get("/lab/reports/v9/model/a%20name%20with%20%C3%BC,%20%25%20and%20%23.txt") == b"odd"
    assert bucket.get("/lab/reports/v9/empty.txt") == b"" and bucket.get("/lab/reports/v9/.env") is None
    assert done["left_out"] == [".env", "model/.cache/x"] and set(done["sent"]) == set(done["files"])
    assert all(key.startswith("reports/v9/") for key in done["files"])
    kinds = [line.split()[0] for line in lines]
    assert kinds == ["sent"] * 5 + ["read"] * 5 + ["sent", "read"] and "upload.json" in lines[-1]
    assert not [line for line in lines if KEY in line or SECRET in line or str(bucket.port) in line]
    assert "complete: 6 sent, 0 there already" in upload_text(done)


def test_a_large_file_arrives_in_parts(bucket, run, monkeypatch):
    monkeypatch.setattr("cryptolab.runs.upload.check_secrets", lambda *facts: None)  # takes a second for a megabyte
    content = random.Random(7).randbytes(20 * 2**20 + 1)
    (run / "model" / "weights.bin").write_bytes(content)
    upload(run, "s3://lab/v9", dry_run=False, log=None)
    assert bucket.get("/lab/v9/model/weights.bin") == content


def test_only_what_is_missing_or_different_is_sent_again(bucket, run):
    target = "s3://lab/v9"
    upload(run, target, dry_run=False, log=None)
    assert upload(run, target, dry_run=False, log=None)["sent"] == []
    bucket.ask("PUT", "/lab/v9/report.html", b"<p>a rep0rt")  # of the same size
    bucket.ask("DELETE", "/lab/v9/model/weights.bin")
    bucket.ask("PUT", "/lab/v9/old.html", b"of another run")
    done = upload(run, target, dry_run=False, log=None)
    assert done["sent"] == ["v9/model/weights.bin", "v9/report.html", "v9/upload.json"]
    assert bucket.get("/lab/v9/report.html") == FILES["report.html"]
    assert done["others"] == ["v9/old.html"] and "not of this folder: v9/old.html" in upload_text(done)
    bucket.ask("PUT", "/lab/v9/upload.json", b"{}")
    assert upload(run, target, dry_run=False, log=None)["sent"] == ["v9/upload.json"]
    bucket.ask("PUT", "/lab/v99/report.html", b"a neighbour")  # begins with the same letters
    assert upload(run, target, dry_run=False, log=None)["others"] == ["v9/old.html"]


@pytest.mark.parametrize("victim, body", [("report.html", b"<p>a rep0rt"), ("empty.txt", b"x"), ("upload.json", b"{}")])
def test_an_object_altered_on_the_server_is_found(bucket, run, victim, body):
    def alter(line):
        if line.startswith("sent") and victim in line:
            assert bucket.ask("PUT", f"/lab/v9/{victim}", body)[0] == 200

    error = refusal(run, "s3://lab/v9", dry_run=False, log=alter)
    assert sum_of(body)[:12] in told(error, DataError, f"v9/{victim} in the store is not what was sent")
    if victim != "upload.json":
        assert bucket.get("/lab/v9/upload.json") is None
        assert victim in " ".join(upload(run, "s3://lab/v9", dry_run=False, log=None)["sent"])


def test_an_object_that_vanishes_from_the_server_is_missed(bucket, run):
    def remove(line):
        if line.startswith("sent") and "report.html" in line:
            bucket.ask("DELETE", "/lab/v9/report.html")

    error = refusal(run, "s3://lab/v9", dry_run=False, log=remove)
    assert "no object" in told(error, DataError, "v9/report.html in the store is not what was sent")
    assert bucket.get("/lab/v9/upload.json") is None


def test_an_interrupted_upload_has_no_list(bucket, run):
    def stop(line):
        if line.startswith("sent 2"):
            raise KeyboardInterrupt

    upload(run, "s3://lab/v9", dry_run=False, log=None)
    for name in ("report.html", "result.json"):
        (run / name).write_bytes(b"{}")
    with pytest.raises(KeyboardInterrupt):
        upload(run, "s3://lab/v9", dry_run=False, log=stop)
    assert bucket.get("/lab/v9/upload.json") is None and bucket.get("/lab/v9/report.html") == b"{}"
    assert upload(run, "s3://lab/v9", dry_run=False, log=None)["sent"] == ["v9/upload.json"]


def test_a_file_that_changes_meanwhile(bucket, run):
    def edit(line):
        if line.startswith("sent 1"):
            (run / name).write_bytes(b"another" + KEY.encode())

    name = "result.json"  # to be sent later
    told(refusal(run, "s3://lab/v9", dry_run=False, log=edit), DataError, "changed during the upload")
    assert bucket.get("/lab/v9/result.json") is None and bucket.get("/lab/v9/upload.json") is None
    (run / name).write_bytes(b"{}")
    name = "empty.txt"  # the first, sent already
    told(refusal(run, "s3://lab/v9", dry_run=False, log=edit), DataError, "changed during the upload")
    assert bucket.get("/lab/v9/upload.json") is None


def test_a_file_that_vanishes_or_appears_meanwhile(bucket, run):
    def remove(line):
        (run / "result.json").unlink(missing_ok=True)

    def add(line):
        (run / "new.txt").write_text("new")

    told(refusal(run, "s3://lab/v9", dry_run=False, log=remove), DataError, "changed during the upload")
    (run / "result.json").write_bytes(b"{}")
    told(refusal(run, "s3://lab/v9", dry_run=False, log=add), DataError, "changed during the upload")
    assert "v9/new.txt" in upload(run, "s3://lab/v9", dry_run=False, log=None)["sent"]


def test_a_bucket_that_refuses(bucket, run):
    rule = {"Effect": "Deny", "Principal": "*", "Action": "s3:PutObject", "Resource": "arn:aws:s3:::lab/*"}
    rules = json.dumps({"Version": "2012-10-17", "Statement": [rule]}).encode()
    assert bucket.ask("PUT", "/lab?policy", rules)[0] in (200, 204)
    assert "HTTP 403" in told(refusal(run, "s3://lab/v9", dry_run=False, log=None), SourceError, "may not do that")


def test_a_login_that_the_store_does_not_know(bucket, run):
    bucket.ask("POST", "/moto-api/reset-auth", b"0")
    try:
        error = refusal(run, "s3://lab/v9", dry_run=False, log=None)
    finally:
        bucket.ask("POST", "/moto-api/reset-auth", b"inf")
    assert "HTTP 403, InvalidAccessKeyId" in told(error, SourceError, "may not do that in s3://lab/v9")


def test_a_missing_bucket(bucket, run):
    error = refusal(run, "s3://nothing-here/v9", dry_run=False, log=None)
    assert "HTTP 404, NoSuchBucket" in told(error, SourceError, "there is no bucket for s3://nothing-here/v9")


# ---- before anything leaves: no server needed

def test_nobody_answers(away, run):
    told(refusal(run, "s3://lab/v9", dry_run=False, log=None), SourceError, "cannot be reached for s3://lab/v9")


def test_a_dry_run_touches_no_network(run, monkeypatch):
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    plan = upload(run, "s3://lab/reports/v9/")
    assert plan["sent"] is None and list(plan["files"])[-1] == "reports/v9/upload.json"
    assert plan["files"]["reports/v9/result.json"] == {"bytes": 16, "sha256": sum_of(FILES["result.json"])}
    assert upload_text(plan).endswith("nothing was uploaded; the same with --yes uploads it")
    assert "left out: .env" in upload_text(plan)
    told(refusal(run, "s3://lab/v9", dry_run=False, log=None), SourceError, "no credentials")


def test_an_address_without_encryption_must_be_allowed(away, run, monkeypatch):
    monkeypatch.delenv("AWS_ALLOW_HTTP")
    told(refusal(run, "s3://lab/v9", dry_run=False, log=None), SettingsError, "is not encrypted")


@pytest.mark.parametrize("name, content, words", [
    ("notes.txt", "aws_access_key_id = AKIA" + "Z7" * 8, "notes.txt holds an access token"),
    ("model/weights.bin", b"\x00\xff" + SECRET.encode() + b"\x00", "this machine's own (not shown)"),
    ("training.log", f"login as {KEY}", "training.log holds an access token"),
])
@pytest.mark.parametrize("dry_run", [True, False])
def test_no_secret_leaves(away, run, name, content, words, dry_run):
    (run / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    shown = told(refusal(run, "s3://lab/v9", dry_run=dry_run, log=None), SettingsError, words)
    assert "Z7" not in shown


def test_sums_that_a_result_names_are_no_secrets(run):
    number = sum_of(b"candles")
    (run / "result.json").write_text(json.dumps({"data": {"sha256": number}}))
    (run / "training.log").write_text(f"candles {number}\n")
    assert "v9/training.log" in upload(run, "s3://lab/v9")["files"]
    (run / "result.json").write_text("no JSON")
    told(refusal(run, "s3://lab/v9"), SettingsError, "training.log holds an access token")


@pytest.mark.parametrize("target", [
    "s3://lab", "s3://lab/", "s3://Lab/v9", "s3://lab//v9", "s3://lab/a/../b", "s3://lab/v9?x=1", "s3:lab/v9", "lab/v9",
    "https://lab/v9", "file://host/folder", "file:///", "", f"s3://{KEY}:{SECRET}@lab/v9", f"{KEY}:{SECRET}",
])
def test_a_malformed_target(run, monkeypatch, target):
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    told(refusal(run, target), SettingsError, "this is not a target")


def test_folders_that_cannot_be_copied(run, tmp_path):
    told(refusal(tmp_path / "nothing", "s3://lab/v9"), DataError, "is no folder")
    told(refusal(run / "report.html", "s3://lab/v9"), DataError, "is no folder")
    (tmp_path / "empty" / "inside").mkdir(parents=True)
    (tmp_path / "empty" / ".hidden").touch()
    told(refusal(tmp_path / "empty", "s3://lab/v9"), DataError, "is empty")
    (run / "upload.json").touch()
    told(refusal(run, "s3://lab/v9"), DataError, "stands where the list is written")
    (run / "upload.json").rename(run / "a\nb")
    told(refusal(run, "s3://lab/v9"), DataError, "a name that no store takes")
    (run / "a\nb").unlink()
    for place in (tmp_path / "empty", tmp_path / "nowhere", run / "report.html"):
        (run / "link").symlink_to(place)
        told(refusal(run, "s3://lab/v9"), ModelError, "found: a link")
        (run / "link").unlink()


def test_a_folder_as_the_target(run, tmp_path):
    target = f"file://{tmp_path}/copy"
    done = upload(run, target, dry_run=False, log=None)
    assert {name: (tmp_path / "copy" / name).read_bytes() for name in FILES} == FILES
    assert set(done["sent"]) == set(FILES) | {"upload.json"}
    assert upload(run, target, dry_run=False, log=None)["sent"] == []
    for inside in (run, run / "model" / "copy"):
        told(refusal(run, f"file://{inside}", dry_run=False), SettingsError, "the target lies in the folder")
    error = refusal(run, f"file://{tmp_path}/copy/report.html/deeper", dry_run=False, log=None)
    told(error, SourceError, "cannot be used")
