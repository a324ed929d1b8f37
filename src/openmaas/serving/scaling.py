"""How many replicas a deployment should have: a rule over what is measured, with hysteresis."""

from __future__ import annotations

UP_SECONDS = 2.0  # of overload before a replica is added …
DOWN_SECONDS = 30.0  # … and of slack before one leaves
WAIT_SECONDS = 0.25  # that the oldest unanswered call may wait
BUSY = 0.9  # of the replicas' time: with calls waiting, that is overload
SLACK = 0.7  # of what one replica fewer could do
SMOOTHING_SECONDS = 2.0


class Scaler:
    """Looked at at regular times. It moves by one replica at a time.

    Args:
        least, most: bounds of the number.
    """

    def __init__(self, least: int, most: int) -> None:
        self.least = least
        self.most = most
        self.utilisation = 0.0  # share of the replicas' time with work in them, smoothed
        self._over_since: float | None = None
        self._slack_since: float | None = None
        self._last: float | None = None

    def look(self, now: float, *, replicas: int, busy: int, oldest_wait: float) -> int:
        """
        Args:
            now: on ``time.monotonic()``'s clock.
            busy: replicas with work in them.
            oldest_wait: seconds for which the oldest call has had no answer at all.

        Returns:
            How many replicas there should be.
        """
        elapsed = 0.0 if self._last is None else now - self._last
        self._last = now
        share = busy / replicas if replicas else 0.0
        self.utilisation += min(1.0, elapsed / SMOOTHING_SECONDS) * (share - self.utilisation)
        over = oldest_wait > WAIT_SECONDS and self.utilisation > BUSY
        slack = replicas > 1 and self.utilisation * replicas < SLACK * (replicas - 1)
        self._over_since = (self._over_since or now) if over else None
        self._slack_since = (self._slack_since or now) if slack and not over else None
        if self._over_since is not None and now - self._over_since >= UP_SECONDS:
            self._over_since = now
            replicas += 1
        elif self._slack_since is not None and now - self._slack_since >= DOWN_SECONDS:
            self._slack_since = now
            replicas -= 1
        return min(max(replicas, self.least, 1), self.most)
