//! The main job on the embedded default.

use crate::Outcome;

pub(crate) fn run(_args: &[&str]) -> Outcome {
    Err("the demo needs `millrace run`, which is not built yet".to_owned())
}
