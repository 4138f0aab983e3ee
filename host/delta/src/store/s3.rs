//! S3 and what speaks its protocol, by `object_store`.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use millrace_core::{Error, Result};
use object_store::aws::{AmazonS3Builder, S3ConditionalPut};
use object_store::{ClientOptions, ObjectStore, RetryConfig};
use schemars::JsonSchema;
use serde::Deserialize;
use url::Url;

/// How to reach an S3 store. What is not given comes from the environment (`AWS_ENDPOINT_URL`, `AWS_REGION`,
/// `AWS_ACCESS_KEY_ID`, ...), then from the machine's role.
#[derive(Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct S3Config {
    /// URL of an S3-compatible store; AWS itself needs none.
    pub endpoint: Option<String>,
    pub region: Option<String>,
    /// By reference: `${env:...}` or `${file:...}`.
    pub access_key_id: Option<String>,
    /// By reference: `${env:...}` or `${file:...}`.
    pub secret_access_key: Option<String>,
    /// By reference: `${env:...}` or `${file:...}`.
    pub session_token: Option<String>,
    /// Allow `http://` endpoints.
    pub allow_http: Option<bool>,
    /// `https://BUCKET.HOST/` instead of `https://HOST/BUCKET/`. Default: with AWS yes, with `endpoint` no.
    pub virtual_hosted_style: Option<bool>,
}

/// Keys are never printed.
impl fmt::Debug for S3Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3Config")
            .field("endpoint", &self.endpoint)
            .field("region", &self.region)
            .finish_non_exhaustive()
    }
}

/// A commit that has not been answered within this time is read back; the engine does not wait minutes for one put.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

pub(super) fn open(url: &Url, config: &S3Config) -> Result<Arc<dyn ObjectStore>> {
    let bucket = url
        .host_str()
        .ok_or_else(|| Error::config("store.path", format!("`{url}` names no bucket")).hint("s3://BUCKET/PREFIX"))?;
    let mut builder = AmazonS3Builder::from_env()
        .with_bucket_name(bucket)
        .with_conditional_put(S3ConditionalPut::ETagMatch)
        .with_retry(RetryConfig { retry_timeout: 2 * REQUEST_TIMEOUT, ..RetryConfig::default() });
    let allow_http = config.allow_http.unwrap_or_else(|| std::env::var("AWS_ALLOW_HTTP").is_ok_and(|v| v == "true"));
    builder =
        builder.with_client_options(ClientOptions::new().with_timeout(REQUEST_TIMEOUT).with_allow_http(allow_http));
    if let Some(endpoint) = &config.endpoint {
        builder = builder
            .with_endpoint(endpoint.trim_end_matches('/'))
            .with_virtual_hosted_style_request(config.virtual_hosted_style.unwrap_or(false));
    } else if let Some(style) = config.virtual_hosted_style {
        builder = builder.with_virtual_hosted_style_request(style);
    }
    if let Some(region) = &config.region {
        builder = builder.with_region(region);
    }
    if let Some(key) = &config.access_key_id {
        builder = builder.with_access_key_id(key);
    }
    if let Some(secret) = &config.secret_access_key {
        builder = builder.with_secret_access_key(secret);
    }
    if let Some(token) = &config.session_token {
        builder = builder.with_token(token);
    }
    let store = builder.build().map_err(|e| {
        Error::config("store.config", format!("`{url}`: {e}")).hint("see `s3:` in the pipeline reference")
    })?;
    Ok(Arc::new(store))
}
