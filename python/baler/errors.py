"""What can go wrong."""


class BalerError(Exception):
    """A call failed: what, where and why, in one line."""


class JobFailed(BalerError):
    """A job's driver ended without a commit. What has a receipt stays done: submitting the job again resumes it."""


class NotSound(BalerError):
    """`verify` found a difference; `report` holds it."""

    def __init__(self, text, report):
        super().__init__(text)
        self.report = report
