"""Typed errors: what the caller must mend, what is worth another try: python handle_errors.py call.mp3"""

import sys

from omnifleet import Client, InvalidJob, MediaError, OmnifleetError, QueueFull, ResultTimeout, TransientError


def main(path: str = "call.mp3") -> None:
    with Client() as omni:
        try:
            print(omni.understand("transcribe", path).result(timeout=300).text)
        except (InvalidJob, MediaError) as error:
            # The same request fails again: `field` says what to mend, `remedy` how.
            print(f"{type(error).__name__} in {error.field}: {error.problem} ({error.remedy})")
        except QueueFull as error:
            print(f"come back in {error.details['retry_after']} s")
        except ResultTimeout as error:
            print(f"job {error.details['job_id']} goes on; ask again later")
        except TransientError as error:
            print(f"worth another try: {error}")
        except OmnifleetError as error:
            print(f"failed for good: {error}")


if __name__ == "__main__":
    main(*sys.argv[1:2])
