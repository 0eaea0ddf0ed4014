"""A fake `gcloud` with a slice of two hosts: folders of $CLOUD. The file $CLOUD/state is the state of the slice.

Commands for a host run in a shell in its folder. Every call appends a line to $CLOUD/calls. All calls fail while the
file $CLOUD/unreachable exists.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

CLOUD = Path(os.environ["CLOUD"])
STATE = CLOUD / "state"
HOSTS = (CLOUD / "host_0", CLOUD / "host_1")


def option(name: str) -> str:
    return next(text.removeprefix(f"--{name}=") for text in sys.argv if text.startswith(f"--{name}="))


def ssh() -> int:
    hosts = HOSTS if option("worker") == "all" else [HOSTS[int(option("worker"))]]
    shells = [
        subprocess.run(["bash", "-c", option("command")], cwd=host, env=os.environ | {"HOME": str(host)}, check=False)
        for host in hosts
    ]
    return max(shell.returncode for shell in shells)


def main() -> int:
    words = [word for word in sys.argv[1:] if not word.startswith("--")]
    with (CLOUD / "calls").open("a") as calls:
        calls.write(" ".join(words) + "\n")
    if (CLOUD / "unreachable").exists():
        print("ERROR: could not be reached", file=sys.stderr)
        return 1
    match words:
        case ["compute", "tpus", "queued-resources", "create", _]:
            for host in HOSTS:
                host.mkdir(exist_ok=True)
            STATE.write_text("ACTIVE\n")
        case ["compute", "tpus", "queued-resources", "describe", _] if STATE.exists():
            print(STATE.read_text().strip())
        case ["compute", "tpus", "queued-resources", "describe", _]:
            print("ERROR: NOT_FOUND: no such resource", file=sys.stderr)
            return 1
        case ["compute", "tpus", "queued-resources", "delete", _]:
            STATE.unlink()
            for host in HOSTS:
                shutil.rmtree(host, ignore_errors=True)  # a shell may still write there after the end of its training
        case ["compute", "tpus", "tpu-vm", "scp", source, target]:
            for host in HOSTS:
                shutil.copy(source, host / target.partition(":")[2])
        case ["compute", "tpus", "tpu-vm", "ssh", _]:
            return ssh()
        case _:
            raise SystemExit(f"fake gcloud does not support: {words}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
