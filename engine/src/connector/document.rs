//! stub
#![allow(missing_docs, reason="stub")]
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::Schema;
use crate::error::Result;
#[derive(Debug)] pub struct DocumentEncoder;
#[derive(Debug)] pub struct Refused { pub id: String, pub reason: String }
#[derive(Debug)] pub struct Documents { pub bytes: Vec<u8>, pub ends: Vec<usize> }
#[derive(Debug)] pub struct Encoded { pub documents: Documents, pub refused: Vec<Refused> }
impl Documents { pub fn len(&self)->usize{self.ends.len()} pub fn get(&self,i:usize)->&[u8]{ let s= if i==0 {0} else {self.ends[i-1]}; &self.bytes[s..self.ends[i]] } }
impl DocumentEncoder { pub fn try_new(_s:&Schema)->Result<Self>{Ok(Self)} pub fn id_index(&self)->Option<usize>{Some(0)} pub fn encode(&self,_b:&RecordBatch)->Result<Encoded>{ Ok(Encoded{documents:Documents{bytes:vec![],ends:vec![]},refused:vec![]}) } }
