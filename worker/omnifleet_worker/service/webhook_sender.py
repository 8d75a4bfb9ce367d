"""Posts callbacks on threads of their own: neither the engine nor a job waits for a receiver."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

from omnifleet_shared.errors import BrokerError, CallbackRefused
from omnifleet_shared.observability.outage_log import OutageLog
from omnifleet_shared.schema.jobs import Job
from omnifleet_shared.webhooks.allow_list import CallbackHosts
from omnifleet_shared.webhooks.outbox import Callbacks, ClaimedCallback
from omnifleet_shared.webhooks.signatures import sign_callback

from ..retry import backoff_seconds
from ..settings import WorkerSettings
from .webhook_http import NotDelivered, post_webhook

logger = logging.getLogger(__name__)
CONCURRENCY = 8
"""Callbacks that a process posts at once."""
CONCURRENCY_PER_HOST = 4
"""Callbacks that a process posts at once to one host, so that a slow host leaves room for others."""
POLL_INTERVAL = 1.0
"""Seconds between two polls for due callbacks, unless a job of this process enqueues one."""
MAX_BACKOFF = 600.0
"""Longest wait between two posts of one callback, in seconds."""


class WebhookSender:
    """Claims due callbacks on one thread and posts them on a few; without a secret it allows and posts none.

    Args:
        callbacks: the outbox in Redis.
        settings: allow list, secret, attempts and time limit.

    Raises:
        InvalidSetting: the allow list cannot be read.
    """

    def __init__(self, callbacks: Callbacks, settings: WorkerSettings) -> None:
        self._callbacks = callbacks
        self._settings = settings
        self._hosts = CallbackHosts(settings.callback_hosts)
        self._posting: Counter[str] = Counter()
        self._outages = OutageLog(logger, "callbacks_unreachable", "callbacks wait", "callbacks are posted again")
        self._lock = threading.Lock()
        self._free = threading.Semaphore(CONCURRENCY)
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._threads = ThreadPoolExecutor(CONCURRENCY, thread_name_prefix="callback")
        self._thread = threading.Thread(target=self._loop, name="webhook-sender", daemon=True)

    def start(self) -> None:
        """Post what is due until `stop`."""
        if self._settings.callback_secret is not None and self._hosts:
            self._thread.start()

    def stop(self) -> None:
        """Claim nothing more, and wait for what is being posted; the rest is for other workers."""
        self._stopping.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join()
        self._threads.shutdown()
        self._callbacks.close()

    def wake(self) -> None:
        """Poll now: a callback was enqueued."""
        self._wake.set()

    def validate_callback(self, job: Job) -> None:
        """Raise CallbackRefused where the job asks for a callback that these workers would not make."""
        if job.callback is None:
            return
        self._hosts.find(job.callback)
        if self._settings.callback_secret is None:
            problem = "the workers have no secret to sign callbacks with"
            raise CallbackRefused(problem, "callback", "Set OMNIFLEET_CALLBACK_SECRET where the workers run")

    def callback_url(self, payload: object) -> str | None:
        """Return the URL that a message, valid or not, wants its outcome posted to; None where that is not allowed."""
        url = payload.get("callback") if isinstance(payload, dict) else None
        if not isinstance(url, str) or self._settings.callback_secret is None:
            return None
        try:
            self._hosts.find(url)
        except CallbackRefused:
            return None
        return url

    def _loop(self) -> None:
        while not self._stopping.is_set():
            self._wake.clear()
            try:
                while not self._stopping.is_set() and self._post_next():
                    pass
                self._outages.answered()
            except BrokerError as error:
                self._outages.failed(error)
            except Exception:
                logger.exception("the webhook sender failed, and goes on", extra={"action": "webhook_sender_failed"})
            self._wake.wait(POLL_INTERVAL)

    def _post_next(self) -> bool:
        """Claim and post one on a free thread; False where nothing is due, or no thread is free."""
        if not self._free.acquire(timeout=POLL_INTERVAL):
            return False
        try:
            # Twice the time that posting may take: whoever claimed it is gone by then.
            claimed = self._callbacks.claim(2 * self._settings.callback_timeout)
            if claimed is not None:
                self._threads.submit(self._deliver, claimed)
        except BaseException:
            self._free.release()
            raise
        if claimed is None:
            self._free.release()
        return claimed is not None

    def _deliver(self, claimed: ClaimedCallback) -> None:
        host = urlsplit(claimed.url).netloc
        with self._lock:
            self._posting[host] += 1
            crowded = self._posting[host] > CONCURRENCY_PER_HOST
        try:
            if crowded:
                self._callbacks.release_claim(claimed, POLL_INTERVAL)
            else:
                self._post(claimed, host)
        except BrokerError as error:
            # Claimed again when the claim is over.
            _log("callback's state is not recorded", "callback_unrecorded", claimed, host, str(error))
        except Exception as error:
            logger.exception("callback failed unexpectedly: %s", claimed.job_id, extra={"action": "callback_crashed"})
            self._retry_or_fail(claimed, host, f"the worker failed with {type(error).__name__}")
        finally:
            with self._lock:
                self._posting[host] -= 1
            self._free.release()

    def _post(self, claimed: ClaimedCallback, host: str) -> None:
        secret = self._settings.callback_secret
        assert secret is not None, "nothing is claimed without one"
        headers = sign_callback(claimed.body, claimed.delivery_id, secret.get_secret_value())
        try:
            post_webhook(claimed.url, claimed.body, headers, self._hosts, self._settings.callback_timeout)
        except (NotDelivered, CallbackRefused) as error:
            self._retry_or_fail(claimed, host, str(error))
            return
        self._callbacks.delivered(claimed)
        extra = {"action": "callback_delivered", "job_id": claimed.job_id, "host": host, "attempt": claimed.attempts}
        logger.info("callback delivered: %s", claimed.job_id, extra=extra)

    def _retry_or_fail(self, claimed: ClaimedCallback, host: str, reason: str) -> None:
        if claimed.attempts >= self._settings.callback_attempts:
            _log("callback given up", "callback_failed", claimed, host, reason)
            self._callbacks.failed(claimed, reason)
            return
        _log("callback is posted again", "callback_retried", claimed, host, reason)
        wait = backoff_seconds(claimed.attempts, self._settings.retry_backoff, MAX_BACKOFF)
        self._callbacks.retry(claimed, reason, wait)


def _log(message: str, action: str, claimed: ClaimedCallback, host: str, reason: str) -> None:
    # The host alone: the rest of the URL may hold a secret.
    extra = {"action": action, "job_id": claimed.job_id, "host": host, "attempt": claimed.attempts}
    logger.warning("%s: %s %s", message, claimed.job_id, reason, extra=extra)
