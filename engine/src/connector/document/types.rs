//! The table of types in code: which BSON element an Arrow type becomes, and which schemas become documents at all.

use std::collections::HashSet;

use bson::spec::ElementType;
use datafusion::arrow::datatypes::{DataType, Field, FieldRef, Fields};

use crate::{Error, Result};

/// Digits of a decimal128.
pub(crate) const DECIMAL_DIGITS_MAX: u8 = 34;

/// MongoDB refuses documents which are nested deeper; the outermost document is level 1.
pub(crate) const NESTING_LEVELS_MAX: usize = 100;

/// What a value of this Arrow type becomes, or the reason why there is no such thing.
///
/// It looks at one level only: fields within are [`check_fields`]' concern.
fn map_type(data_type: &DataType) -> Result<ElementType, String> {
    Ok(match data_type {
        DataType::Null => ElementType::Null,
        DataType::Boolean => ElementType::Boolean,
        DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::UInt8 | DataType::UInt16 => ElementType::Int32,
        DataType::Int64 | DataType::UInt32 | DataType::UInt64 => ElementType::Int64,
        DataType::Float16 | DataType::Float32 | DataType::Float64 => ElementType::Double,
        DataType::Decimal32(digits, scale)
        | DataType::Decimal64(digits, scale)
        | DataType::Decimal128(digits, scale)
        | DataType::Decimal256(digits, scale) => {
            if *digits > DECIMAL_DIGITS_MAX {
                return Err(format!("a decimal128 holds {DECIMAL_DIGITS_MAX} digits: cast it to DECIMAL({DECIMAL_DIGITS_MAX}, {scale})"));
            }
            ElementType::Decimal128
        }
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => ElementType::String,
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => ElementType::Binary,
        DataType::Date32 | DataType::Date64 | DataType::Timestamp(..) => ElementType::DateTime,
        DataType::Time32(_) | DataType::Time64(_) | DataType::Duration(_) => ElementType::Int64,
        DataType::List(_) | DataType::LargeList(_) | DataType::FixedSizeList(..) | DataType::ListView(_) | DataType::LargeListView(_) => {
            ElementType::Array
        }
        DataType::Struct(_) => ElementType::EmbeddedDocument,
        DataType::Map(entries, _) => match map_fields(entries) {
            Some((key, _)) if is_string(key.data_type()) => ElementType::EmbeddedDocument,
            _ => return Err("the keys of a document are strings: cast the map's keys to VARCHAR".to_owned()),
        },
        DataType::Dictionary(_, values) => map_type(values)?,
        DataType::RunEndEncoded(_, values) => map_type(values.data_type())?,
        DataType::Union(..) => return Err("one field cannot be of several types: select one of them".to_owned()),
        DataType::Interval(_) => {
            return Err("MongoDB has no intervals: cast it to VARCHAR, or store its two ends".to_owned());
        }
    })
}

/// The element type of a type which has passed [`check_fields`].
pub(super) fn element_type(data_type: &DataType) -> ElementType {
    map_type(data_type).unwrap_or(ElementType::Undefined)
}

/// Key and value of a map's entries.
pub(super) fn map_fields(entries: &Field) -> Option<(&FieldRef, &FieldRef)> {
    match entries.data_type() {
        DataType::Struct(fields) => match fields.as_ref() {
            [key, value] => Some((key, value)),
            _ => None,
        },
        _ => None,
    }
}

fn is_string(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

/// What fields are checked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    /// Their names must do for MongoDB.
    Write,
    /// Documents of others may have any names.
    Read,
}

/// Refuses fields which no document can have, naming the column.
///
/// # Errors
/// `Config`: a type without BSON form, a name which MongoDB refuses, two fields of one name, or too many levels.
pub(super) fn check_fields(fields: &Fields, purpose: Use) -> Result<()> {
    check_level(fields, purpose, "", 1)
}

/// Why MongoDB would not take a field of this name, or would not find it again.
fn name_fault(name: &str) -> Option<&'static str> {
    match name {
        "" => Some("is empty"),
        _ if name.contains('\0') => Some("contains a NUL byte"),
        _ if name.starts_with('$') => Some("starts with `$`"),
        _ if name.contains('.') => Some("contains a dot"),
        _ => None,
    }
}

fn check_level(fields: &Fields, purpose: Use, parent: &str, level: usize) -> Result<()> {
    if level > NESTING_LEVELS_MAX {
        return Err(Error::config(format!("column `{parent}` is nested deeper than MongoDB's {NESTING_LEVELS_MAX} levels")));
    }
    let mut names = HashSet::with_capacity(fields.len());
    for field in fields {
        let name = field.name().as_str();
        let path = if parent.is_empty() { name.to_owned() } else { format!("{parent}.{name}") };
        let fault = match purpose {
            _ if !names.insert(name) => Some("is there twice"),
            Use::Write => name_fault(name),
            Use::Read => None,
        };
        if let Some(fault) = fault {
            let shown = path.escape_debug();
            return Err(Error::config(format!("column `{shown}` cannot be a field of a document: its name {fault}; rename it with AS")));
        }
        check_type(field.data_type(), purpose, &path, level)?;
    }
    Ok(())
}

fn check_type(data_type: &DataType, purpose: Use, path: &str, level: usize) -> Result<()> {
    if let Err(reason) = map_type(data_type) {
        return Err(Error::config(format!("column `{path}` of type {data_type} has no BSON type: {reason}")));
    }
    if level > NESTING_LEVELS_MAX {
        return Err(Error::config(format!("column `{path}` is nested deeper than MongoDB's {NESTING_LEVELS_MAX} levels")));
    }
    match data_type {
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::FixedSizeList(item, _)
        | DataType::ListView(item)
        | DataType::LargeListView(item) => check_type(item.data_type(), purpose, &format!("{path}[]"), level + 1),
        DataType::Struct(fields) => check_level(fields, purpose, path, level + 1),
        DataType::Map(entries, _) => match map_fields(entries) {
            Some((_, value)) => check_type(value.data_type(), purpose, &format!("{path}.*"), level + 1),
            None => Ok(()),
        },
        DataType::Dictionary(_, values) => check_type(values, purpose, path, level),
        DataType::RunEndEncoded(_, values) => check_type(values.data_type(), purpose, path, level),
        _ => Ok(()),
    }
}

/// A BSON type's name as MongoDB's `$type` has it.
pub(super) fn type_name(element: ElementType) -> &'static str {
    match element {
        ElementType::Double => "double",
        ElementType::String => "string",
        ElementType::EmbeddedDocument => "document",
        ElementType::Array => "array",
        ElementType::Binary => "binary",
        ElementType::Undefined => "undefined",
        ElementType::ObjectId => "objectId",
        ElementType::Boolean => "bool",
        ElementType::DateTime => "date",
        ElementType::Null => "null",
        ElementType::RegularExpression => "regex",
        ElementType::DbPointer => "dbPointer",
        ElementType::JavaScriptCode => "javascript",
        ElementType::Symbol => "symbol",
        ElementType::JavaScriptCodeWithScope => "javascriptWithScope",
        ElementType::Int32 => "int32",
        ElementType::Timestamp => "timestamp",
        ElementType::Int64 => "int64",
        ElementType::Decimal128 => "decimal128",
        ElementType::MinKey => "minKey",
        ElementType::MaxKey => "maxKey",
    }
}
