//! The `config:` of a stage.

use serde::de::DeserializeOwned;

use crate::error::Error;

/// The config document that the pipeline file gives a plugin.
#[derive(Debug, Clone)]
pub struct Config {
    json: String,
    pipeline: String,
}

impl Config {
    #[doc(hidden)]
    pub fn new(json: String, pipeline: String) -> Self {
        Config { json, pipeline }
    }

    /// The name of the pipeline.
    pub fn pipeline(&self) -> &str {
        &self.pipeline
    }

    /// The document as JSON text. Empty: the pipeline file gives none.
    pub fn json(&self) -> &str {
        &self.json
    }

    /// The document as a type of the plugin's own. A missing document counts as `{}`.
    ///
    /// # Errors
    /// [`Error::InvalidConfig`], with the line and column within the document.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, Error> {
        let json = if self.json.trim().is_empty() { "{}" } else { &self.json };
        serde_json::from_str(json).map_err(|e| Error::InvalidConfig(format!("config: {e}")))
    }
}
