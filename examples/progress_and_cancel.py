"""Watch a long job, then stop it: python progress_and_cancel.py"""

import time

from omnifleet import Client, JobCancelled


def main() -> None:
    with Client() as omni:
        job = omni.generate("t2a", "waves of the sea", seconds=300)
        print(f"sent {job.id}")  # Client().job(id) finds it again, from any process

        while (progress := job.progress()).step == 0 and not job.status().is_final:
            time.sleep(0.2)
        print(f"step {progress.step} of {progress.steps}")

        job.cancel()  # stops at its next step
        try:
            job.result(timeout=60)
        except JobCancelled:
            print("cancelled")


if __name__ == "__main__":
    main()
