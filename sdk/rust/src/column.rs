//! Column view: a column of a batch, and how one is read and written without an allocation a row.

use crate::bindings::types::{self, Cells, VarData};
use crate::cell::{Cell, Decimal, Moment, Uuid, Value};
use crate::error::Error;
use crate::schema::DataType;

pub(crate) const NULL: u8 = 0;
pub(crate) const VALUE: u8 = 1;
pub(crate) const NOT_SENT: u8 = 2;

/// The cells of one column of a batch. Made by the host, or by an [`Out`](crate::Out).
#[derive(Debug, Clone)]
pub struct Column(pub(crate) types::Column);

impl Column {
    #[doc(hidden)]
    pub fn from_raw(column: types::Column) -> Self {
        Column(column)
    }

    /// Rows of this column.
    pub fn len(&self) -> usize {
        match &self.0.cells {
            Cells::Bools(v) => v.len(),
            Cells::I32s(v) => v.len(),
            Cells::I64s(v) => v.len(),
            Cells::F32s(v) => v.len(),
            Cells::F64s(v) => v.len(),
            Cells::Vars(v) => v.offsets.len().saturating_sub(1),
            Cells::Fixed(v) => v.data.len() / (v.width.max(1) as usize),
        }
    }

    /// No rows.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the row has a value, is NULL, or was not sent.
    pub fn state(&self, row: usize) -> Cell<()> {
        state(self.0.presence.as_deref(), row)
    }

    /// Fixed-width cells, such as the host's hashes, as lower-case hexadecimal text.
    ///
    /// # Errors
    /// The column is not of fixed width.
    pub fn into_hex(self) -> Result<Column, Error> {
        let Cells::Fixed(fixed) = self.0.cells else { return Err(Error::bug("hex: the column is not of fixed width")) };
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let width = fixed.width.max(1) as usize;
        let rows = fixed.data.len() / width;
        let mut text =
            VarData { offsets: Vec::with_capacity(rows + 1), data: Vec::with_capacity(2 * fixed.data.len()) };
        text.offsets.push(0);
        for (row, cell) in fixed.data.chunks_exact(width).enumerate() {
            if self.0.presence.as_ref().is_none_or(|p| p[row] == VALUE) {
                for byte in cell {
                    text.data.push(DIGITS[usize::from(byte >> 4)]);
                    text.data.push(DIGITS[usize::from(byte & 15)]);
                }
            }
            text.offsets.push(text.data.len() as u32);
        }
        Ok(Column(types::Column { presence: self.0.presence, cells: Cells::Vars(text) }))
    }
}

fn state(presence: Option<&[u8]>, row: usize) -> Cell<()> {
    match presence.map_or(VALUE, |p| p[row]) {
        NULL => Cell::Null,
        NOT_SENT => Cell::NotSent,
        _ => Cell::Value(()),
    }
}

fn mismatch(wanted: &str, ty: &DataType) -> Error {
    Error::bug(format!("the column holds {ty:?}, which cannot be read as {wanted}"))
}

/// How the cells of a column are read: [`Text`], [`Bytes`], [`Int`], [`Float`], [`Bool`], or [`Any`] of them.
pub trait Read: 'static {
    /// The column, looked at once a batch.
    type View<'a>;
    /// A value of it.
    type Item<'a>;
    /// Whether columns of this type can be read so: checked by `plan`, before any row flows.
    fn fits(ty: &DataType) -> bool;
    /// Looks at the column.
    ///
    /// # Errors
    /// The cells are not what the type promises.
    fn view<'a>(column: &'a Column, ty: &DataType) -> Result<Self::View<'a>, Error>;
    /// The value of a row that has one.
    fn get<'a>(view: &Self::View<'a>, row: usize) -> Self::Item<'a>;
}

/// Text, JSON and decimals as `&str`.
#[derive(Debug)]
pub struct Text;
/// Text, JSON, decimals and binary as `&[u8]`: the fastest way to look at text, for it is not checked to be UTF-8.
#[derive(Debug)]
pub struct Bytes;
/// Integers, dates, times and timestamps as `i64`.
#[derive(Debug)]
pub struct Int;
/// Floats as `f64`.
#[derive(Debug)]
pub struct Float;
/// Booleans.
#[derive(Debug)]
pub struct Bool;
/// Any type, as a [`Value`].
#[derive(Debug)]
pub struct Any;

impl Read for Text {
    type View<'a> = (&'a [u32], &'a str);
    type Item<'a> = &'a str;

    fn fits(ty: &DataType) -> bool {
        matches!(ty, DataType::Text | DataType::Json | DataType::Decimal { .. })
    }

    fn view<'a>(column: &'a Column, ty: &DataType) -> Result<Self::View<'a>, Error> {
        let Cells::Vars(v) = &column.0.cells else { return Err(mismatch("text", ty)) };
        // Once for all rows: slicing a str then only looks at the ends of each cell.
        let text = std::str::from_utf8(&v.data).map_err(|e| Error::bug(format!("text that is not UTF-8: {e}")))?;
        Ok((&v.offsets, text))
    }

    #[inline]
    fn get<'a>((offsets, text): &Self::View<'a>, row: usize) -> &'a str {
        &text[offsets[row] as usize..offsets[row + 1] as usize]
    }
}

impl Read for Bytes {
    type View<'a> = (&'a [u32], &'a [u8]);
    type Item<'a> = &'a [u8];

    fn fits(ty: &DataType) -> bool {
        Text::fits(ty) || *ty == DataType::Binary
    }

    fn view<'a>(column: &'a Column, ty: &DataType) -> Result<Self::View<'a>, Error> {
        let Cells::Vars(v) = &column.0.cells else { return Err(mismatch("bytes", ty)) };
        Ok((&v.offsets, &v.data))
    }

    #[inline]
    fn get<'a>((offsets, data): &Self::View<'a>, row: usize) -> &'a [u8] {
        &data[offsets[row] as usize..offsets[row + 1] as usize]
    }
}

/// The integers of an [`Int`] column.
#[derive(Debug, Clone, Copy)]
#[doc(hidden)]
pub enum Ints<'a> {
    Narrow(&'a [i32]),
    Wide(&'a [i64]),
}

impl Read for Int {
    type View<'a> = Ints<'a>;
    type Item<'a> = i64;

    fn fits(ty: &DataType) -> bool {
        use DataType as T;
        matches!(ty, T::Int8 | T::Int16 | T::Int32 | T::Int64 | T::Date | T::Time | T::Timestamp | T::TimestampTz)
    }

    fn view<'a>(column: &'a Column, ty: &DataType) -> Result<Ints<'a>, Error> {
        match &column.0.cells {
            Cells::I32s(v) => Ok(Ints::Narrow(v)),
            Cells::I64s(v) => Ok(Ints::Wide(v)),
            _ => Err(mismatch("integers", ty)),
        }
    }

    #[inline]
    fn get<'a>(view: &Self::View<'a>, row: usize) -> Self::Item<'a> {
        match view {
            Ints::Narrow(v) => i64::from(v[row]),
            Ints::Wide(v) => v[row],
        }
    }
}

/// The floats of a [`Float`] column.
#[derive(Debug, Clone, Copy)]
#[doc(hidden)]
pub enum Floats<'a> {
    Narrow(&'a [f32]),
    Wide(&'a [f64]),
}

impl Read for Float {
    type View<'a> = Floats<'a>;
    type Item<'a> = f64;

    fn fits(ty: &DataType) -> bool {
        matches!(ty, DataType::Float32 | DataType::Float64)
    }

    fn view<'a>(column: &'a Column, ty: &DataType) -> Result<Floats<'a>, Error> {
        match &column.0.cells {
            Cells::F32s(v) => Ok(Floats::Narrow(v)),
            Cells::F64s(v) => Ok(Floats::Wide(v)),
            _ => Err(mismatch("floats", ty)),
        }
    }

    #[inline]
    fn get<'a>(view: &Self::View<'a>, row: usize) -> Self::Item<'a> {
        match view {
            Floats::Narrow(v) => f64::from(v[row]),
            Floats::Wide(v) => v[row],
        }
    }
}

impl Read for Bool {
    type View<'a> = &'a [u8];
    type Item<'a> = bool;

    fn fits(ty: &DataType) -> bool {
        *ty == DataType::Boolean
    }

    fn view<'a>(column: &'a Column, ty: &DataType) -> Result<&'a [u8], Error> {
        match &column.0.cells {
            Cells::Bools(v) => Ok(v),
            _ => Err(mismatch("booleans", ty)),
        }
    }

    #[inline]
    fn get<'a>(view: &Self::View<'a>, row: usize) -> Self::Item<'a> {
        view[row] != 0
    }
}

/// A column of any type and what it is.
#[derive(Debug, Clone)]
#[doc(hidden)]
pub struct AnyView<'a> {
    ty: DataType,
    cells: &'a Cells,
    text: Option<&'a str>,
}

impl Read for Any {
    type View<'a> = AnyView<'a>;
    type Item<'a> = Value<'a>;

    fn fits(_: &DataType) -> bool {
        true
    }

    fn view<'a>(column: &'a Column, ty: &DataType) -> Result<AnyView<'a>, Error> {
        let text = if Text::fits(ty) { Some(Text::view(column, ty)?.1) } else { None };
        Ok(AnyView { ty: ty.clone(), cells: &column.0.cells, text })
    }

    fn get<'a>(view: &Self::View<'a>, row: usize) -> Self::Item<'a> {
        match view.cells {
            Cells::Bools(v) => Value::Bool(v[row] != 0),
            Cells::I32s(v) if view.ty == DataType::Date => Value::Date(Moment::from_days(v[row])),
            Cells::I32s(v) => Value::Int(i64::from(v[row])),
            Cells::I64s(v) => long(v[row], &view.ty),
            Cells::F32s(v) => Value::Float(f64::from(v[row])),
            Cells::F64s(v) => Value::Float(v[row]),
            Cells::Vars(v) => {
                let range = v.offsets[row] as usize..v.offsets[row + 1] as usize;
                match (&view.ty, view.text) {
                    (DataType::Decimal { .. }, Some(text)) => Value::Decimal(Decimal::Text(&text[range])),
                    (DataType::Json, Some(text)) => Value::Json(&text[range]),
                    (_, Some(text)) => Value::Text(&text[range]),
                    (DataType::Binary, None) => Value::Binary(&v.data[range]),
                    _ => Value::Other(&v.data[range]),
                }
            }
            Cells::Fixed(v) => {
                let width = v.width as usize;
                let cell = &v.data[row * width..(row + 1) * width];
                match <[u8; 16]>::try_from(cell) {
                    Ok(bytes) if view.ty == DataType::Uuid => Value::Uuid(Uuid(bytes)),
                    _ => Value::Other(cell),
                }
            }
        }
    }
}

fn long<'a>(value: i64, ty: &DataType) -> Value<'a> {
    match ty {
        DataType::UInt64 => Value::UInt(value as u64),
        DataType::Decimal64 { scale, .. } => Value::Decimal(Decimal::Unscaled { unscaled: value, scale: *scale }),
        DataType::Time => Value::Time(value),
        DataType::Timestamp => Value::Timestamp(Moment::from_micros(value)),
        DataType::TimestampTz => Value::TimestampTz(Moment::from_micros(value)),
        _ => Value::Int(value),
    }
}

/// A column and the way it is read: `get` answers a [`Cell`].
pub(crate) struct Reader<'a, R: Read> {
    presence: Option<&'a [u8]>,
    view: R::View<'a>,
}

impl<'a, R: Read> Reader<'a, R> {
    pub(crate) fn new(column: &'a Column, ty: &DataType) -> Result<Self, Error> {
        Ok(Reader { presence: column.0.presence.as_deref(), view: R::view(column, ty)? })
    }

    #[inline]
    pub(crate) fn get(&self, row: usize) -> Cell<R::Item<'a>> {
        match self.presence {
            None => Cell::Value(R::get(&self.view, row)),
            Some(presence) => match presence[row] {
                NULL => Cell::Null,
                NOT_SENT => Cell::NotSent,
                _ => Cell::Value(R::get(&self.view, row)),
            },
        }
    }
}
