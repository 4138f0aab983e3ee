//! From a table's name to its folder.

use millrace_core::schema::TableName;
use millrace_core::{Error, Result};

use crate::store::safe_name;

/// A path with places for the name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Template {
    /// Up to the first folder that depends on the name: records and provenance live there.
    pub base: String,
    /// The folders below, joined by `/`.
    below: String,
}

impl Template {
    /// Errors: `delta.path` for a place that is not `{namespace}` or `{table}`.
    pub(crate) fn parse(path: &str) -> Result<Self> {
        let path = path.trim_end_matches('/');
        let Some(brace) = path.find('{') else {
            return Ok(Self { base: path.to_owned(), below: "{namespace}/{table}".to_owned() });
        };
        let (base, below) = match path[..brace].rfind('/') {
            Some(slash) => (&path[..slash], &path[slash + 1..]),
            None => (".", path),
        };
        let rest = below.replace("{namespace}", "").replace("{table}", "");
        if rest.contains(['{', '}']) {
            return Err(Error::config(
                "delta.path",
                format!("`{path}` has a place that is not {{namespace}} or {{table}}"),
            )
            .hint("s3://lake/{namespace}/{table}"));
        }
        let bucket_in_place = base.ends_with(":/") || base.ends_with(':');
        if bucket_in_place {
            return Err(Error::config("delta.path", format!("`{path}` makes the bucket depend on the table")));
        }
        Ok(Self { base: base.to_owned(), below: below.to_owned() })
    }

    /// A single table that lies at the path itself, whatever its name: dead letters.
    pub(crate) fn single(path: &str) -> Self {
        Self { base: path.trim_end_matches('/').to_owned(), below: String::new() }
    }

    /// The folder of a table below the base. Folders without a name (no namespace) are left out.
    pub(crate) fn folder(&self, table: &TableName) -> String {
        let filled = |part: &str| {
            part.replace("{namespace}", &safe_name(&table.namespace)).replace("{table}", &safe_name(&table.table))
        };
        let folders: Vec<String> = self.below.split('/').map(filled).filter(|folder| !folder.is_empty()).collect();
        folders.join("/")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_into_their_places() {
        for (path, base, folder) in [
            ("s3://lake/{namespace}/{table}", "s3://lake", "public/orders"),
            ("/data/x/cdc_{table}/", "/data/x", "cdc_orders"),
            ("/data/lake", "/data/lake", "public/orders"),
            ("{table}", ".", "orders"),
            ("s3://lake/raw/{namespace}.{table}", "s3://lake/raw", "public.orders"),
        ] {
            let template = Template::parse(path).unwrap();
            assert_eq!(template.base, base);
            assert_eq!(template.folder(&TableName::new("public", "orders")), folder);
        }
        assert_eq!(Template::parse("/l").unwrap().folder(&TableName::new("", "a/b")), "a=2Fb");
        assert_eq!(Template::single("/l/_letters").folder(&TableName::new("", "dead_letters")), "");
    }

    #[test]
    fn other_places_are_refused() {
        for path in ["/l/{schema}/{table}", "s3://{namespace}/{table}", "/l/{table"] {
            assert_eq!(Template::parse(path).unwrap_err().code, "delta.path", "{path}");
        }
    }
}
