"""Places that cannot work: told at the first look, in one line that says what to do, without another try."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from aurl_trainer.errors import CheckpointError, UnavailableError
from aurl_trainer.store.location.place import Location
from tests.integration.stores.conftest import Faulty
from tests.integration.stores.servers import BUCKET

pytestmark = pytest.mark.processes


def test_a_bucket_that_is_not_there(faulty: Faulty) -> None:
    place = Location(faulty.uri.replace(f"//{BUCKET}/", "//aurl-is-not-there/"))
    with pytest.raises(
        CheckpointError, match=r"create the bucket or container, or correct checkpoint\.uri"
    ) as e:
        place.write_probe()
    assert not isinstance(e.value, UnavailableError) and "\n" not in str(e.value)
    asked = [f"{s.method} {s.path}" for s in faulty.proxy.seen]
    assert asked and max(map(asked.count, asked)) == 1, f"expected no second try, found {asked}"


@pytest.mark.parametrize("uri", ["s3://aurl/run", "gs://aurl/run", "abfs://aurl/run"])
def test_no_credentials(uri: str, tmp_path: Path) -> None:
    code = """
        import sys
        from aurl_trainer.errors import CheckpointError, UnavailableError
        from aurl_trainer.store.location.place import Location
        try:
            Location(sys.argv[1]).write_probe()
        except CheckpointError as error:
            print(error)
            raise SystemExit(isinstance(error, UnavailableError))
    """
    # Outside of the clouds, so that no machine's identity is looked for.
    env = {"HOME": str(tmp_path), "NO_GCE_CHECK": "true", "AWS_EC2_METADATA_DISABLED": "true"}
    env |= {k: os.environ[k] for k in ("PATH", "PYTHONPATH") if k in os.environ}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), uri],
        env=env, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    (line,) = done.stdout.splitlines()
    assert "no credentials were found: give the job's checkpoint.secret, or set the store's variables" in line
