"""Send the same request twice and run it once: python idempotent_retry.py"""

import tenacity
from omnifleet import Client, TransientError

# The connection may break after the job was sent and before its id came back. With a key, sending again joins the
# job that waits, runs or has succeeded, so it is safe to try until it works.
send_until_it_works = tenacity.retry(
    retry=tenacity.retry_if_exception_type(TransientError),
    wait=tenacity.wait_exponential(max=30),
    stop=tenacity.stop_after_delay(300),
    reraise=True,
)


def main() -> None:
    with Client() as omni:

        @send_until_it_works
        def send() -> str:
            # A name of your own, such as an order's number; "auto" makes the key from the request's content.
            return omni.generate("tts", "Your order has left.", quality="fast", idempotency_key="order-4711").id

        first, second = send(), send()
        print(f"one job: {first == second}")
        print(omni.job(first).save("order-4711.wav", timeout=300))


if __name__ == "__main__":
    main()
