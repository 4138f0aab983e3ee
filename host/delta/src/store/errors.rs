//! What an object store's error means to the engine.

use std::error::Error as StdError;
use std::io::{self, ErrorKind};

use delta_kernel::Error as KernelError;
use millrace_core::Error;
use object_store::Error as StoreError;

use super::durable::NotDurable;

fn cause<'a, T: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a T> {
    let mut current = Some(error);
    while let Some(e) = current {
        if let Some(found) = e.downcast_ref::<T>() {
            return Some(found);
        }
        current = e.source();
    }
    None
}

/// A sync was refused: what was written may be there and yet be lost with the power, so reading it proves nothing.
pub(crate) fn is_not_durable(error: &StoreError) -> bool {
    cause::<NotDurable>(error).is_some()
}

/// What the store said where another library failed by it.
pub(crate) fn store_cause<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a StoreError> {
    if let Some(KernelError::Backtraced { source, .. }) = cause::<KernelError>(error) {
        return store_cause(source.as_ref());
    }
    match cause::<KernelError>(error) {
        // Not among its sources.
        Some(KernelError::ObjectStore(found)) => Some(found),
        _ => cause::<StoreError>(error),
    }
}

/// `place`: the table or object, for the message.
pub(crate) fn store_error(place: &str, error: StoreError) -> Error {
    said_by_store(place, &error)
}

/// As [`store_error`].
pub(crate) fn said_by_store(place: &str, error: &StoreError) -> Error {
    if is_not_durable(error) {
        return Error::halt("store.not_durable", format!("{place}: {error}"))
            .hint("the disk refused to sync what was written; check it before starting again");
    }
    match cause::<io::Error>(error).map(io::Error::kind) {
        Some(ErrorKind::StorageFull | ErrorKind::QuotaExceeded) => {
            return Error::retry("store.full", format!("{place}: {error}"))
                .hint("free space there; nothing was acknowledged to the source, the pipeline goes on by itself");
        }
        Some(ErrorKind::ReadOnlyFilesystem) => {
            return Error::halt("store.read_only", format!("{place}: {error}"))
                .hint("mount it writable or choose another path");
        }
        _ => {}
    }
    match error {
        StoreError::PermissionDenied { .. } => Error::halt("store.permission_denied", format!("{place}: {error}"))
            .hint("the user that runs millrace needs to read and write there"),
        StoreError::Unauthenticated { .. } => Error::halt("store.unauthenticated", format!("{place}: {error}"))
            .hint("check the access key, the secret and the region"),
        StoreError::NotFound { .. } => Error::halt("store.not_found", format!("{place}: {error}"))
            .hint("an object that the table refers to, or the bucket, is not there"),
        StoreError::InvalidPath { .. }
        | StoreError::NotSupported { .. }
        | StoreError::NotImplemented { .. }
        | StoreError::UnknownConfigurationKey { .. } => Error::config("store.config", format!("{place}: {error}")),
        _ => Error::retry("store.unavailable", format!("{place}: {error}"))
            .hint("nothing was acknowledged to the source; the pipeline tries again"),
    }
}
