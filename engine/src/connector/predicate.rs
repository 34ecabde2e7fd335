//! What a scan of stored documents may leave out. Before: filters of a query; after: a [`Predicate`], which every document fulfils whose
//! row passes the filters.
//!
//! It need not say all that the filters say, because the plan filters once more what is read; it must never say more. So what is not
//! understood, or is not equal in SQL and in BSON's order of values, is left out: `NaN` and `-0.0` have another place there, an
//! ObjectId is a text here.

use std::fmt;

use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Schema, TimeUnit};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::Operator;
use datafusion::physical_expr::expressions::{BinaryExpr, Column, InListExpr, IsNotNullExpr, IsNullExpr, Literal as Constant, NotExpr};
use datafusion::physical_expr::{PhysicalExpr, ScalarFunctionExpr};
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

/// What of a filter may be left to a reader.
#[derive(Debug, Clone, PartialEq)]
pub struct Left {
    /// What every document fulfils whose row passes the filter.
    pub predicate: Predicate,
    /// Whether the row of every document which fulfils it passes, if its values have the types of their columns.
    pub is_all: bool,
}

type Filter = Arc<dyn PhysicalExpr>;

/// What of a filter may be left to the reader of documents with these columns; `None` for nothing.
pub fn left_to_reader(filter: &Filter, schema: &Schema) -> Option<Left> {
    let mut is_all = true;
    let predicate = predicate(filter, schema, &mut is_all)?;
    Some(Left { predicate, is_all })
}

/// Says in `is_all` when it leaves something out.
fn predicate(filter: &Filter, schema: &Schema, is_all: &mut bool) -> Option<Predicate> {
    if let Some(binary) = filter.downcast_ref::<BinaryExpr>() {
        return match binary.op() {
            Operator::And => match (predicate(binary.left(), schema, is_all), predicate(binary.right(), schema, is_all)) {
                (Some(left), Some(right)) => Some(Predicate::And(vec![left, right])),
                (left, right) => {
                    *is_all = false;
                    left.or(right)
                }
            },
            Operator::Or => {
                Some(Predicate::Or(vec![predicate(binary.left(), schema, is_all)?, predicate(binary.right(), schema, is_all)?]))
            }
            op => match (constant(binary.left()), constant(binary.right())) {
                (None, Some(value)) => compare(binary.left(), comparison(*op)?, value, schema, is_all),
                (Some(value), None) => compare(binary.right(), comparison(op.swap()?)?, value, schema, is_all),
                _ => None,
            },
        };
    }
    if let Some(in_list) = filter.downcast_ref::<InListExpr>().filter(|in_list| !in_list.negated()) {
        let (path, data_type) = field(in_list.expr(), schema)?;
        let values: Option<Vec<Literal>> = in_list.list().iter().map(|item| literal(constant(item)?, &data_type)).collect();
        *is_all &= data_type != DataType::Float64;
        return Some(Predicate::In { path, values: values? });
    }
    if let Some(is_null) = filter.downcast_ref::<IsNullExpr>() {
        return field(is_null.arg(), schema).map(|(path, _)| Predicate::IsNull(path));
    }
    if let Some(is_not_null) = filter.downcast_ref::<IsNotNullExpr>() {
        return field(is_not_null.arg(), schema).map(|(path, _)| Predicate::IsNotNull(path));
    }
    match filter.downcast_ref::<NotExpr>() {
        Some(not) => flag(not.arg(), false, schema),
        None => flag(filter, true, schema),
    }
}

fn constant(filter: &Filter) -> Option<&ScalarValue> {
    filter.downcast_ref::<Constant>().map(Constant::value)
}

/// A boolean field by itself.
fn flag(filter: &Filter, value: bool, schema: &Schema) -> Option<Predicate> {
    match field(filter, schema)? {
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

fn compare(of: &Filter, comparison: Comparison, value: &ScalarValue, schema: &Schema, is_all: &mut bool) -> Option<Predicate> {
    let (path, data_type) = field(of, schema)?;
    let value = literal(value, &data_type)?;
    // Both zeros are one value in BSON.
    if comparison == Comparison::NotEqual && value == Literal::Double(0.0) {
        return None;
    }
    *is_all &= !matches!(value, Literal::Double(_));
    Some(Predicate::Compare { path, comparison, value })
}

/// The path and type of a column, or of a field within one; only types which are no list, because a list's items are looked at one by one.
pub(super) fn field(expr: &Filter, schema: &Schema) -> Option<(String, DataType)> {
    let path = path(expr)?;
    let data_type = expr.data_type(schema).ok()?;
    let is_plain = matches!(
        data_type,
        DataType::Boolean | DataType::Float32 | DataType::Float64 | DataType::Binary | DataType::Decimal128(..) | DataType::Timestamp(..)
    ) || data_type.is_integer()
        || data_type.is_string();
    is_plain.then_some((path, data_type))
}

fn path(expr: &Filter) -> Option<String> {
    let plain = |name: &str| (!name.is_empty() && !name.contains(['.', '$', '\0'])).then(|| name.to_string());
    if let Some(column) = expr.downcast_ref::<Column>() {
        return plain(column.name());
    }
    let call = expr.downcast_ref::<ScalarFunctionExpr>().filter(|call| call.name() == "get_field")?;
    // Fields within fields are one call with several names.
    let (of, names) = call.args().split_first()?;
    names.iter().try_fold(path(of)?, |path, name| Some(format!("{path}.{}", plain(constant(name)?.try_as_str()??)?)))
}

impl Predicate {
    /// The fields which it looks at.
    pub fn paths(&self) -> Vec<&str> {
        match self {
            Self::Compare { path, .. } | Self::In { path, .. } | Self::IsNull(path) | Self::IsNotNull(path) => vec![path],
            Self::And(parts) | Self::Or(parts) => parts.iter().flat_map(Self::paths).collect(),
        }
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
    use datafusion::arrow::datatypes::{Field, Fields};
    use datafusion::common::DFSchema;
    use datafusion::functions::core::expr_ext::FieldAccessor;
    use datafusion::logical_expr::{Expr, col, lit, not};
    use datafusion::prelude::SessionContext;

    use super::*;

    fn left(filter: &Expr) -> Option<Left> {
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
        let schema = DFSchema::try_from(Schema::new(fields)).unwrap();
        let physical = SessionContext::new().create_physical_expr(filter.clone(), &schema).unwrap();
        left_to_reader(&physical, schema.as_arrow())
    }

    fn found(filter: &Expr) -> Option<Predicate> {
        left(filter).map(|left| left.predicate)
    }

    fn compared(path: &str, comparison: Comparison, value: Literal) -> Option<Predicate> {
        Some(Predicate::Compare { path: path.to_string(), comparison, value })
    }

    #[test]
    fn what_is_understood_on_both_sides_is_left_to_the_reader() {
        assert_eq!(found(&col("n").gt(lit(5_i64))), compared("n", Comparison::Greater, Literal::Integer(5)));
        assert_eq!(found(&lit(5_i64).gt(col("n"))), compared("n", Comparison::Less, Literal::Integer(5)));
        assert_eq!(
            found(&col("text").eq(lit(ScalarValue::Utf8View(Some("a".to_string()))))),
            compared("text", Comparison::Equal, Literal::Text("a".into()))
        );
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
            Expr::Column(datafusion::common::Column::new_unqualified("a.b")).eq(lit(1_i64)),
            not(col("n").eq(lit(1_i64))),
            col("n").in_list(vec![lit(1_i64)], true),
            col("n").eq(lit(1_i64)).or(col("n").gt(col("n"))),
        ] {
            assert_eq!(found(&filter), None, "{filter}");
        }
        // What is said of it is all, but for doubles, and where a condition is left out.
        let is_all = |filter: &Expr| left(filter).unwrap().is_all;
        assert!(is_all(
            &col("n")
                .gt(lit(5_i64))
                .or(col("text").eq(lit(ScalarValue::Utf8View(Some("a".to_string())))).and(col("inner").field("x").is_null()))
        ));
        assert!(!is_all(&col("ratio").gt(lit(1.5))) && !is_all(&col("n").gt(lit(5_i64)).and(col("n").gt(col("n")))));
        // Of two conditions the one which is understood.
        assert_eq!(found(&col("n").gt(col("n")).and(col("n").eq(lit(1_i64)))), compared("n", Comparison::Equal, Literal::Integer(1)));
    }
}
