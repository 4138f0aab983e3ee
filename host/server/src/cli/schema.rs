//! `millrace schema`.

use clap::Args as ClapArgs;
use millrace_core::{Error, Result};

use super::{Outcome, print, say};
use crate::config::schema;
use crate::metric_names;

/// Prints the JSON Schema of pipeline files, for editors
#[derive(Debug, ClapArgs)]
#[command(
    after_help = "Example:\n  millrace schema > millrace.schema.json\n\nThen begin a pipeline file with:\n  # yaml-language-server: $schema=millrace.schema.json"
)]
pub(super) struct Args {
    /// Print the reference of the book instead
    #[arg(long, hide = true)]
    markdown: bool,
    /// Print the table of metrics of the book instead
    #[arg(long, hide = true)]
    metrics: bool,
}

pub(super) fn perform(args: &Args) -> Result<Outcome> {
    if args.markdown {
        print(schema::reference_markdown());
    } else if args.metrics {
        print(metric_names::markdown());
    } else {
        let text = serde_json::to_string_pretty(&schema::pipeline_schema());
        say(text.map_err(|e| Error::bug(e.to_string()))?);
    }
    Ok(Outcome::Done)
}
