//! Key material for `crypto`: it is in the host's memory alone, plugins know its name.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// Secrets by name, as the server read them. Can not be printed.
#[derive(Clone, Default)]
pub struct Keys(Arc<BTreeMap<String, Vec<u8>>>);

impl Keys {
    /// Names and material.
    pub fn new(keys: impl IntoIterator<Item = (String, Vec<u8>)>) -> Self {
        Self(Arc::new(keys.into_iter().collect()))
    }

    pub(crate) fn get(&self, name: &str) -> Option<&[u8]> {
        self.0.get(name).map(Vec::as_slice)
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Keys").field(&self.0.keys().collect::<Vec<_>>()).finish()
    }
}
