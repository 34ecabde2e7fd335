//! What a scan of stored documents may leave out. Before: filters of a query; after: a [`Predicate`], which every document fulfils whose
//! row passes the filters.
//!
//! It need not say all that the filters say, because the plan filters once more what is read; it must never say more. So what is not
//! understood, or is not equal in SQL and in BSON's order of values, is left out: `NaN` and `-0.0` have another place there, an
//! ObjectId is a text here.

use std::fmt;

use datafusion::arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::{Column, DFSchema, ScalarValue};
use datafusion::logical_expr::expr::{Between, InList, ScalarFunction};
use datafusion::logical_expr::{BinaryExpr, Expr, ExprSchemable, Operator};
use serde::{Deserialize, Serialize};

/// A condition on one document.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Predicate {
    /// A field against a value.
    Compare {
        /// Names from the outside in, with dots between them.
        path: String,
        /// How.
        comparison: Comparison,
        /// With what.
        value: Literal,
    },
    /// A field is one of these.
    In {
        /// As that of `Compare`.
        path: String,
        /// With what.
        values: Vec<Literal>,
    },
    /// A field is missing or null.
    IsNull(String),
    /// A field is there and not null.
    IsNotNull(String),
    /// All of these.
    And(Vec<Self>),
    /// One of these at least.
    Or(Vec<Self>),
}

/// How a field is compared with a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Comparison {
    /// `=`
    Equal,
    /// `<>`
    NotEqual,
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
    /// `>`
    Greater,
    /// `>=`
    GreaterOrEqual,
}

/// A value of a type whose order is the same on both sides, but for what is said with it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Literal {
    /// True or false.
    Boolean(bool),
    /// An integer of any width.
    Integer(i64),
    /// A finite double. Here -0.0 is below 0.0, and NaN above all.
    Double(f64),
    /// A text. An ObjectId is read as its hexadecimal digits.
    Text(String),
    /// Milliseconds since 1970 UTC.
    Millis(i64),
}

impl fmt::Display for Predicate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let joined = |parts: &[Self], word: &str| parts.iter().map(|part| format!("({part})")).collect::<Vec<_>>().join(word);
        match self {
            Self::Compare { path, comparison, value } => {
                let sign = match comparison {
                    Comparison::Equal => "=",
                    Comparison::NotEqual => "<>",
                    Comparison::Less => "<",
                    Comparison::LessOrEqual => "<=",
                    Comparison::Greater => ">",
                    Comparison::GreaterOrEqual => ">=",
                };
                write!(f, "{path} {sign} {value:?}")
            }
            Self::In { path, values } => write!(f, "{path} IN {values:?}"),
            Self::IsNull(path) => write!(f, "{path} IS NULL"),
            Self::IsNotNull(path) => write!(f, "{path} IS NOT NULL"),
            Self::And(parts) => f.write_str(&joined(parts, " AND ")),
            Self::Or(parts) => f.write_str(&joined(parts, " OR ")),
        }
    }
}

/// What of a filter may be left to the reader of documents with these columns; `None` for nothing.
pub fn predicate(filter: &Expr, schema: &DFSchema) -> Option<Predicate> {
    match filter {
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::And, right }) => match (predicate(left, schema), predicate(right, schema)) {
            (Some(left), Some(right)) => Some(Predicate::And(vec![left, right])),
            (left, right) => left.or(right),
        },
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Or, right }) => {
            Some(Predicate::Or(vec![predicate(left, schema)?, predicate(right, schema)?]))
        }
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => match (left.as_ref(), right.as_ref()) {
            (field, Expr::Literal(value, _)) => compare(field, comparison(*op)?, value, schema),
            (Expr::Literal(value, _), field) => compare(field, comparison(op.swap()?)?, value, schema),
            _ => None,
        },
        Expr::Between(Between { expr, negated: false, low, high }) => match (low.as_ref(), high.as_ref()) {
            (Expr::Literal(low, _), Expr::Literal(high, _)) => Some(Predicate::And(vec![
                compare(expr, Comparison::GreaterOrEqual, low, schema)?,
                compare(expr, Comparison::LessOrEqual, high, schema)?,
            ])),
            _ => None,
        },
        Expr::InList(InList { expr, list, negated: false }) => {
            let (path, data_type) = field(expr, schema)?;
            let values = list.iter().map(|item| match item {
                Expr::Literal(value, _) => literal(value, &data_type),
                _ => None,
            });
            Some(Predicate::In { path, values: values.collect::<Option<_>>()? })
        }
        Expr::IsNull(expr) => field(expr, schema).map(|(path, _)| Predicate::IsNull(path)),
        Expr::IsNotNull(expr) => field(expr, schema).map(|(path, _)| Predicate::IsNotNull(path)),
        Expr::Column(_) => flag(filter, true, schema),
        Expr::Not(expr) => flag(expr, false, schema),
        _ => None,
    }
}

/// A boolean field by itself.
fn flag(expr: &Expr, value: bool, schema: &DFSchema) -> Option<Predicate> {
    match field(expr, schema)? {
        (path, DataType::Boolean) => Some(Predicate::Compare { path, comparison: Comparison::Equal, value: Literal::Boolean(value) }),
        _ => None,
    }
}

fn comparison(operator: Operator) -> Option<Comparison> {
    Some(match operator {
        Operator::Eq => Comparison::Equal,
        Operator::NotEq => Comparison::NotEqual,
        Operator::Lt => Comparison::Less,
        Operator::LtEq => Comparison::LessOrEqual,
        Operator::Gt => Comparison::Greater,
        Operator::GtEq => Comparison::GreaterOrEqual,
        _ => return None,
    })
}

fn compare(expr: &Expr, comparison: Comparison, value: &ScalarValue, schema: &DFSchema) -> Option<Predicate> {
    let (path, data_type) = field(expr, schema)?;
    let value = literal(value, &data_type)?;
    // Both zeros are one value in BSON.
    if comparison == Comparison::NotEqual && value == Literal::Double(0.0) {
        return None;
    }
    Some(Predicate::Compare { path, comparison, value })
}

/// The path and type of a column, or of a field within one; only types which are no list, because a list's items are looked at one by one.
fn field(expr: &Expr, schema: &DFSchema) -> Option<(String, DataType)> {
    let path = path(expr)?;
    let data_type = expr.get_type(schema).ok()?;
    let is_plain = matches!(
        data_type,
        DataType::Boolean | DataType::Float32 | DataType::Float64 | DataType::Binary | DataType::Decimal128(..) | DataType::Timestamp(..)
    ) || data_type.is_integer()
        || data_type.is_string();
    is_plain.then_some((path, data_type))
}

fn path(expr: &Expr) -> Option<String> {
    let plain = |name: &str| (!name.is_empty() && !name.contains(['.', '$', '\0'])).then(|| name.to_string());
    match expr {
        Expr::Column(Column { name, .. }) => plain(name),
        Expr::ScalarFunction(ScalarFunction { func, args }) if func.name() == "get_field" => match args.as_slice() {
            // Fields within fields are one call with several names.
            [of, names @ ..] => names.iter().try_fold(path(of)?, |path, name| match name {
                Expr::Literal(name, _) => Some(format!("{path}.{}", plain(name.try_as_str()??)?)),
                _ => None,
            }),
            [] => None,
        },
        _ => None,
    }
}

/// A literal, if it is of the column's type.
fn literal(value: &ScalarValue, data_type: &DataType) -> Option<Literal> {
    if value.is_null() {
        return None;
    }
    match (value, data_type) {
        (ScalarValue::Boolean(value), DataType::Boolean) => value.map(Literal::Boolean),
        (ScalarValue::Float64(Some(value)), DataType::Float64) if value.is_finite() => Some(Literal::Double(*value)),
        (ScalarValue::TimestampMillisecond(value, _), DataType::Timestamp(TimeUnit::Millisecond, _)) => value.map(Literal::Millis),
        (value, data_type) if data_type.is_string() => value.try_as_str()?.map(|text| Literal::Text(text.to_string())),
        (value, data_type) if data_type.is_integer() && value.data_type() == *data_type => match value.cast_to(&DataType::Int64).ok()? {
            ScalarValue::Int64(value) => value.map(Literal::Integer),
            _ => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::datatypes::{Field, Fields, Schema};
    use datafusion::functions::core::expr_ext::FieldAccessor;
    use datafusion::logical_expr::{col, lit, not};

    use super::*;

    fn found(filter: &Expr) -> Option<Predicate> {
        let inner = Fields::from(vec![Field::new("x", DataType::Int64, true)]);
        let list = DataType::List(Field::new("item", DataType::Int64, true).into());
        let fields = vec![
            Field::new("n", DataType::Int64, true),
            Field::new("text", DataType::Utf8View, true),
            Field::new("ratio", DataType::Float64, true),
            Field::new("inner", DataType::Struct(inner), true),
            Field::new("list", list, true),
            Field::new("a.b", DataType::Int64, true),
        ];
        predicate(filter, &DFSchema::try_from(Schema::new(fields)).unwrap())
    }

    fn compared(path: &str, comparison: Comparison, value: Literal) -> Option<Predicate> {
        Some(Predicate::Compare { path: path.to_string(), comparison, value })
    }

    #[test]
    fn what_is_understood_on_both_sides_is_left_to_the_reader() {
        assert_eq!(found(&col("n").gt(lit(5_i64))), compared("n", Comparison::Greater, Literal::Integer(5)));
        assert_eq!(found(&lit(5_i64).gt(col("n"))), compared("n", Comparison::Less, Literal::Integer(5)));
        assert_eq!(found(&col("text").eq(lit("a"))), compared("text", Comparison::Equal, Literal::Text("a".into())));
        assert_eq!(found(&col("inner").field("x").lt_eq(lit(1_i64))), compared("inner.x", Comparison::LessOrEqual, Literal::Integer(1)));
        assert_eq!(found(&col("ratio").is_null()), Some(Predicate::IsNull("ratio".to_string())));
        let both = found(&col("n").in_list(vec![lit(1_i64), lit(2_i64)], false).and(col("n").between(lit(0_i64), lit(9_i64)))).unwrap();
        assert!(matches!(both, Predicate::And(parts) if parts.len() == 2));
    }

    #[test]
    fn what_is_not_is_left_to_the_plan() {
        for filter in [
            col("n").gt(col("n")),
            col("n").eq(lit(ScalarValue::Int64(None))),
            col("n").eq(lit(1.5)),
            col("ratio").gt(lit(f64::NAN)),
            col("ratio").lt(lit(f64::INFINITY)),
            col("ratio").not_eq(lit(0.0)),
            col("ratio").not_eq(lit(-0.0)),
            col("list").is_null(),
            Expr::Column(Column::new_unqualified("a.b")).eq(lit(1_i64)),
            not(col("n").eq(lit(1_i64))),
            col("n").in_list(vec![lit(1_i64)], true),
            col("n").eq(lit(1_i64)).or(col("n").gt(col("n"))),
        ] {
            assert_eq!(found(&filter), None, "{filter}");
        }
        // Of two conditions the one which is understood.
        assert_eq!(found(&col("n").gt(col("n")).and(col("n").eq(lit(1_i64)))), compared("n", Comparison::Equal, Literal::Integer(1)));
    }
}
