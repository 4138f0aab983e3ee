//! Files as memory.

use std::fs::File;
use std::io;

use bytes::Bytes;

/// A whole file, read by the kernel as it is looked at.
#[allow(unsafe_code)]
pub(super) fn map(file: &File) -> io::Result<Bytes> {
    // SAFETY: the bytes must not change while they are mapped. Only [`super::shelf`] writes these files: under a name of its
    // own, moved to the last one when it is complete, and never opened for writing again. One that is removed or replaced
    // stays as it is for who has it mapped.
    let map = unsafe { memmap2::Mmap::map(file) }?;
    Ok(Bytes::from_owner(map))
}
