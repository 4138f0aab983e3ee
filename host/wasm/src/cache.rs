//! Compiled components on disk: 0.1 ms to load a Rust plugin, against 0.3 s to compile it (JavaScript: 10 s).

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use wasmtime::Engine;
use wasmtime::component::Component;

/// At the end of each image: its SHA-256.
const SEAL: usize = 32;

/// A folder that only this user may enter. Images are native code: what is in there is what this host wrote, and none is ever taken
/// from elsewhere.
#[derive(Clone, Debug)]
pub(crate) struct Cache {
    folder: Option<PathBuf>,
}

impl Cache {
    /// No folder, or one that others could write to: everything is compiled, each time.
    pub(crate) fn new(folder: Option<PathBuf>) -> Self {
        let usable = folder.filter(|folder| match private(folder) {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!(folder = %folder.display(), error, "plugins are compiled at each start, the cache can not be used");
                false
            }
        });
        Self { folder: usable }
    }

    /// The component of these bytes, whose digest is given: from the cache, or compiled and put there.
    pub(crate) fn component(&self, engine: &Engine, digest: &str, bytes: &[u8]) -> wasmtime::Result<Component> {
        let Some(folder) = &self.folder else { return Component::new(engine, bytes) };
        let path = folder.join(format!("{digest}-{:016x}.cwasm", compatibility(engine)));
        if let Some(component) = load(engine, &path) {
            metrics::counter!("millrace_plugin_cache_total", "result" => "hit").increment(1);
            return Ok(component);
        }
        metrics::counter!("millrace_plugin_cache_total", "result" => "miss").increment(1);
        let component = Component::new(engine, bytes)?;
        match component.serialize().map_err(|e| e.to_string()).and_then(|image| store(&path, image)) {
            Ok(()) => {}
            Err(error) => tracing::warn!(path = %path.display(), error, "a compiled plugin can not be kept"),
        }
        Ok(component)
    }
}

/// Whatever changes the machine code changes this: wasmtime's version, its settings, the processor's features.
fn compatibility(engine: &Engine) -> u64 {
    let mut hasher = DefaultHasher::new();
    engine.precompile_compatibility_hash().hash(&mut hasher);
    hasher.finish()
}

/// None: not there, not whole, or of another engine. It is compiled again then.
fn load(engine: &Engine, path: &Path) -> Option<Component> {
    let file = match fs::read(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return None,
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "a compiled plugin can not be read");
            return None;
        }
    };
    let (image, seal) = file.split_at_checked(file.len().checked_sub(SEAL)?)?;
    if Sha256::digest(image).as_slice() != seal {
        tracing::warn!(path = %path.display(), "a compiled plugin is damaged and is compiled again");
        return None;
    }
    deserialize(engine, image, path)
}

#[allow(unsafe_code)]
fn deserialize(engine: &Engine, image: &[u8], path: &Path) -> Option<Component> {
    // SAFETY: the image was made by `Component::serialize` of this host: it lies in a folder that only this user can write to
    // (`private`), under a name that only `store` writes, and it is whole (its seal was compared). Wasmtime itself checks that
    // it fits this engine.
    let component = unsafe { Component::deserialize(engine, image) };
    component.inspect_err(|error| tracing::warn!(path = %path.display(), %error, "a compiled plugin does not fit and is compiled again")).ok()
}

/// In one step, so that a crash leaves nothing that looks whole.
fn store(path: &Path, image: Vec<u8>) -> Result<(), String> {
    let staged = path.with_extension(format!("{}.new", std::process::id()));
    let written = fs::File::create(&staged).and_then(|mut file| {
        file.write_all(&image)?;
        file.write_all(&Sha256::digest(&image))
    });
    written.and_then(|()| fs::rename(&staged, path)).map_err(|e| e.to_string())
}

/// Makes the folder, and checks that it is this user's alone.
#[cfg(unix)]
fn private(folder: &Path) -> Result<(), String> {
    use std::os::unix::fs::{DirBuilderExt, MetadataExt};
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.map_err(|e| e.to_string())?;
    let metadata = fs::metadata(folder).map_err(|e| e.to_string())?;
    // A file of ours has our user id, whatever that is.
    let probe = folder.join(format!(".owner-{}", std::process::id()));
    let ours = fs::File::create(&probe).and_then(|f| f.metadata()).map(|m| m.uid()).map_err(|e| e.to_string())?;
    fs::remove_file(&probe).map_err(|e| e.to_string())?;
    match metadata.mode() & 0o077 {
        0 if metadata.uid() == ours => Ok(()),
        _ => Err("others than this user can enter it: chmod 700".to_string()),
    }
}

#[cfg(not(unix))]
fn private(_: &Path) -> Result<(), String> {
    Err("only supported on Unix".to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &[u8] = b"\0asm\x0d\0\x01\0";

    fn image(folder: &Path) -> PathBuf {
        let mut files = fs::read_dir(folder).expect("folder").map(|f| f.expect("file").path());
        files.find(|f| f.extension().is_some_and(|e| e == "cwasm")).expect("an image")
    }

    #[test]
    fn a_damaged_image_is_compiled_again() {
        let folder = tempfile::tempdir().expect("folder");
        let folder = folder.path().join("cache");
        let engine = crate::engine::engine().expect("engine");
        let cache = Cache::new(Some(folder.clone()));
        cache.component(&engine, "digest", EMPTY).expect("compiled");
        let path = image(&folder);
        let whole = fs::read(&path).expect("image");
        for damaged in [&whole[..whole.len() / 2], &[], &[&whole[..whole.len() - 1], b"x"].concat()] {
            fs::write(&path, damaged).expect("written");
            assert!(load(&engine, &path).is_none());
            cache.component(&engine, "digest", EMPTY).expect("compiled again");
            assert_eq!(fs::read(&path).expect("image").len(), whole.len());
            assert!(load(&engine, &path).is_some());
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_folder_that_others_can_write_to_is_not_used() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().expect("folder");
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).expect("mode");
        assert!(Cache::new(Some(folder.path().to_path_buf())).folder.is_none());
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).expect("mode");
        assert!(Cache::new(Some(folder.path().to_path_buf())).folder.is_some());
    }
}
