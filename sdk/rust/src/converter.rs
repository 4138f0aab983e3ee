//! The role `converter`: one column at a time, bound to its definition.

use crate::bindings::exports_converter as wit;
use crate::bindings::types;
use crate::cell::Cell;
use crate::column::{Any, Column, Reader};
use crate::config::Config;
use crate::error::{Error, Reject};
use crate::out::Out;
use crate::schema::{ColumnDef, DataType};
use crate::{Read, Value};

/// A plugin that gives columns another type or encoding. It sees neither other columns nor what becomes of a row.
pub trait Converter: Sized + 'static {
    /// JSON Schema of the config document, which the host checks; empty: anything.
    const CONFIG_SCHEMA: &'static str = "";

    /// Reads the config.
    ///
    /// # Errors
    /// Usually [`Error::InvalidConfig`].
    fn configure(config: &Config) -> Result<Self, Error>;

    /// What the cells of this column become; none: they are left alone.
    ///
    /// # Errors
    /// [`Error::UnsupportedSchema`] quarantines the table.
    fn plan(&self, column: &ColumnDef) -> Result<Option<Conversion>, Error>;
}

type Convert = Box<dyn Fn(&Column, usize) -> Result<(Column, Vec<(usize, Reject)>), Error>>;

/// What is done with the cells of one column. NULL and *not sent* stay what they are.
pub struct Conversion {
    to: DataType,
    convert: Convert,
}

impl std::fmt::Debug for Conversion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Conversion").field("to", &self.to).finish_non_exhaustive()
    }
}

impl Conversion {
    /// From values of any type.
    pub fn new(
        column: &ColumnDef,
        to: DataType,
        f: impl for<'a> Fn(Value<'a>, &mut Out) -> Result<(), Reject> + 'static,
    ) -> Self {
        Self::of::<Any>(column, to, f)
    }

    /// From values that are read as `R`; the column's type must fit it.
    pub fn of<R: Read>(
        column: &ColumnDef,
        to: DataType,
        f: impl for<'a> Fn(R::Item<'a>, &mut Out) -> Result<(), Reject> + 'static,
    ) -> Self {
        let (from, target) = (column.ty.clone(), to.clone());
        let convert = move |input: &Column, rows: usize| {
            let cells = Reader::<R>::new(input, &from)?;
            let (mut out, mut rejects) = (Out::new(&target, rows, Some(input)), Vec::new());
            for row in 0..rows {
                match cells.get(row) {
                    Cell::Value(value) => {
                        if let Err(reject) = f(value, &mut out) {
                            rejects.push((row, reject));
                            out.set_null();
                        }
                    }
                    Cell::Null => out.set_null(),
                    Cell::NotSent => out.set_not_sent(),
                }
                out.end_row();
            }
            Ok((out.finish(), rejects))
        };
        Conversion { to, convert: Box::new(convert) }
    }

    pub(crate) fn to(&self) -> types::DataType {
        self.to.clone().into()
    }

    pub(crate) fn run(&self, name: &str, rows: u32, input: types::Column) -> Result<wit::Converted, Error> {
        let (column, rejects) = (self.convert)(&Column(input), rows as usize)?;
        let reject = |(row, Reject { code, reason, retryable }): (usize, Reject)| types::Reject {
            row: row as u32,
            code,
            reason,
            column: Some(name.to_string()),
            retryable,
            ext: Vec::new(),
        };
        Ok(wit::Converted { column: column.0, rejects: rejects.into_iter().map(reject).collect() })
    }
}
