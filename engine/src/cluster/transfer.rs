//! A shuffle whose transfer breaks off is fetched again.
//!
//! Ballista (55) sends a task again when it cannot begin to fetch a shuffle. When the connection breaks later, in the middle of the
//! batches, the error has lost where it came from, and the whole query failed with it. Here it becomes an I/O error, after which
//! the task is tried again, up to 4 times; if its source is gone, the next attempt fails at its beginning, and the
//! stages below are run again.

use std::error::Error as StdError;
use std::io;

use ballista_core::error::BallistaError;
use datafusion::arrow::error::ArrowError;
use datafusion::error::DataFusionError;

/// The error of a task which reads shuffles; one that can come from a broken transfer as an I/O error.
pub(super) fn retryable(error: DataFusionError) -> DataFusionError {
    if is_transfer(error.find_root()) {
        // As text: Ballista looks through an error for its innermost cause.
        DataFusionError::IoError(io::Error::new(io::ErrorKind::ConnectionReset, error.strip_backtrace()))
    } else {
        error
    }
}

fn is_transfer(error: &(dyn StdError + 'static)) -> bool {
    if let Some(error) = error.downcast_ref::<DataFusionError>() {
        return match error.find_root() {
            DataFusionError::ArrowError(cause, _) => is_transfer(cause.as_ref()),
            DataFusionError::External(cause) => is_transfer(cause.as_ref()),
            _ => false,
        };
    }
    if let Some(error) = error.downcast_ref::<BallistaError>() {
        return match error {
            BallistaError::ArrowError(cause) => is_transfer(cause.as_ref()),
            BallistaError::DataFusionError(cause) => is_transfer(cause.as_ref()),
            _ => false,
        };
    }
    match error.downcast_ref::<ArrowError>() {
        // By blocks: the transport's error as text.
        Some(ArrowError::IpcError(_) | ArrowError::IoError(..)) => true,
        // By batches: the transport's error itself.
        Some(ArrowError::ExternalError(cause)) => is_transfer(cause.as_ref()),
        Some(_) => false,
        None => error.is::<tonic::Status>(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use ballista_core::serde::protobuf::FailedTask;
    use ballista_core::serde::protobuf::failed_task::FailedReason;

    use super::*;
    use crate::error::Error;

    fn is_retried(error: DataFusionError) -> bool {
        FailedTask::from(BallistaError::DataFusionError(Box::new(retryable(error)))).retryable
    }

    #[test]
    fn a_shuffle_that_cannot_be_fetched_is_told_through_a_writer_of_ours() {
        let fetch = BallistaError::FetchFailed("executor".to_string(), 1, 2, "refused".to_string());
        let error = DataFusionError::from(Error::from(DataFusionError::External(Box::new(fetch))));
        let task = FailedTask::from(BallistaError::DataFusionError(Box::new(retryable(error))));
        assert!(matches!(task.failed_reason, Some(FailedReason::FetchPartitionError(_))), "{task:?}");
    }

    #[test]
    fn a_broken_transfer_is_tried_again_and_other_errors_are_not() {
        let broken = || ArrowError::IpcError("h2 protocol error: error reading a body from connection".to_string());
        assert!(is_retried(DataFusionError::ArrowError(Box::new(broken()), None)));
        assert!(is_retried(DataFusionError::External(Box::new(DataFusionError::ArrowError(Box::new(broken()), None)))));
        assert!(is_retried(DataFusionError::External(Box::new(BallistaError::from(broken())))));
        assert!(is_retried(DataFusionError::Shared(Arc::new(DataFusionError::ArrowError(Box::new(broken()), None)))));
        let status = ArrowError::from_external_error(Box::new(tonic::Status::unknown("broken pipe")));
        assert!(is_retried(DataFusionError::ArrowError(Box::new(status), None)));
        // On its way through a writer of ours.
        assert!(is_retried(Error::from(DataFusionError::ArrowError(Box::new(broken()), None)).into()));
        assert!(!is_retried(DataFusionError::ArrowError(Box::new(ArrowError::DivideByZero), None)));
        assert!(!is_retried(Error::permanent("no").into()));
    }
}
