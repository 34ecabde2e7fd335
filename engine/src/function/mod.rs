//! stub
#![allow(missing_docs, reason="stub")]
pub mod codec { pub fn decompress_value(_m:&str,_d:&[u8],_l:u64)->crate::Result<Vec<u8>>{ Ok(vec![]) } }
pub mod zlib { pub fn choose_effort(_s:&[&[u8]], _l:u8)->u8{6} }
use datafusion::arrow::array::*; use datafusion::arrow::datatypes::*; use datafusion::logical_expr::*; use std::sync::Arc; use rayon::prelude::*;
use datafusion::prelude::create_udf;
pub fn all() -> Vec<Arc<ScalarUDF>> { 
 let z = create_udf("zlib_compress", vec![DataType::Binary, DataType::Int64], DataType::Binary, Volatility::Immutable, Arc::new(|a| { let ColumnarValue::Array(a)=&a[0] else { todo!() }; let b=a.as_binary::<i32>(); 
   let v: Vec<Vec<u8>> = (0..b.len()).into_par_iter().map_init(|| libdeflater::Compressor::new(libdeflater::CompressionLvl::new(6).unwrap()), |c,i| { let d=b.value(i); let mut o=vec![0;c.zlib_compress_bound(d.len())]; let n=c.zlib_compress(d,&mut o).unwrap(); o.truncate(n); o }).collect();
   Ok(ColumnarValue::Array(Arc::new(BinaryArray::from_iter_values(v)))) }));
 let o = create_udf("octet_length", vec![DataType::Binary], DataType::Int32, Volatility::Immutable, Arc::new(|a| { let ColumnarValue::Array(a)=&a[0] else { todo!() }; let b=a.as_binary::<i32>(); Ok(ColumnarValue::Array(Arc::new(Int32Array::from_iter_values((0..b.len()).map(|i| b.value(i).len() as i32))))) }));
 let c = create_udf("crc32", vec![DataType::Binary], DataType::Int64, Volatility::Immutable, Arc::new(|a| { let ColumnarValue::Array(a)=&a[0] else { todo!() }; let b=a.as_binary::<i32>(); Ok(ColumnarValue::Array(Arc::new(Int64Array::from_iter_values((0..b.len()).map(|i| crc32fast::hash(b.value(i)) as i64))))) }));
 let r = create_udf("compression_ratio", vec![DataType::Int64,DataType::Int64], DataType::Float64, Volatility::Immutable, Arc::new(|a| { let (ColumnarValue::Array(a),ColumnarValue::Array(b))=(&a[0],&a[1]) else { todo!() }; let a=a.as_primitive::<Int64Type>(); let b=b.as_primitive::<Int64Type>(); Ok(ColumnarValue::Array(Arc::new(Float64Array::from_iter_values((0..b.len()).map(|i| a.value(i) as f64/b.value(i) as f64))))) }));
 vec![Arc::new(z),Arc::new(o),Arc::new(c),Arc::new(r)] }
