"""One client for many greenlets, under gevent's monkey patching; prints their answers, and how often others ran."""

from __future__ import annotations

from gevent import monkey

monkey.patch_all()

import json  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402

import gevent  # noqa: E402
from omnifleet import Client  # noqa: E402


def main(count: int) -> None:
    """Ask so many questions at once."""
    switches: list[float] = []

    def tick() -> None:
        while True:
            switches.append(time.monotonic())
            gevent.sleep(0.01)

    ticking = gevent.spawn(tick)
    with Client() as omni:

        def ask(number: int) -> str:
            return omni.understand(question=f"Who is number {number}?", max_new_tokens=20).result(60).text

        greenlets = [gevent.spawn(ask, number) for number in range(count)]
        gevent.joinall(greenlets, timeout=90)
    ticking.kill()
    sys.stdout.write(json.dumps({"answers": [one.value for one in greenlets], "switches": len(switches)}))


if __name__ == "__main__":
    main(int(sys.argv[1]))
