"""The images' health check: exit code 0 where the URL answers 200, by default the worker's readiness. No omnifleet."""

import os
import sys
import urllib.error
import urllib.request

SECONDS = 4
"""Below the time-out of the HEALTHCHECK, so that the reason is printed."""


def main() -> int:
    url = sys.argv[1] if len(sys.argv) > 1 else f"http://127.0.0.1:{os.environ['OMNIFLEET_HTTP_PORT']}/readyz"
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(url, timeout=SECONDS) as answer:
            sys.stdout.write(answer.read(1000).decode(errors="replace"))
    except urllib.error.HTTPError as error:
        sys.stdout.write(f"{error.code}: {error.read(1000).decode(errors='replace')}")
        return 1
    except OSError as error:
        sys.stdout.write(f"{url} does not answer: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
