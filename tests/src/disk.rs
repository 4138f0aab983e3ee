//! Disks that fill up or can not be written, small enough to be filled in a moment.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A mounted `tmpfs`: a disk of its own. Dropping it unmounts it.
#[derive(Debug)]
pub struct Disk {
    at: PathBuf,
}

impl Disk {
    /// None where this user may not mount (not root).
    pub fn mount(at: &Path, megabytes: u32) -> Option<Disk> {
        fs::create_dir_all(at).expect("a folder");
        let size = format!("size={megabytes}m");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(at).output();
        mounted.is_ok_and(|out| out.status.success()).then(|| Disk { at: at.to_owned() })
    }

    /// Changes its options: `size=100m`, `ro`, `rw`.
    pub fn remount(&self, option: &str) {
        let options = format!("remount,{option}");
        let out = Command::new("mount").args(["-o", &options]).arg(&self.at).output().expect("mount");
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: a process that a failing test leaves behind may still have a file open.
        Command::new("umount").arg("-l").arg(&self.at).status().ok();
    }
}
