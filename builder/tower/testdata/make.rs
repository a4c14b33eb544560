// Writes the same rows with each codec and each version of the Parquet writer of arrow-rs.
//
//     cargo run -- FOLDER      (crates: arrow 60 and half without features, parquet 60 with arrow, snap,
//                              brotli, flate2, lz4 and zstd)
use arrow::array::*;
use arrow::datatypes::*;
use arrow::record_batch::RecordBatch;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, Encoding};
use parquet::file::properties::{WriterProperties, WriterVersion};
use parquet::schema::types::ColumnPath;
use std::sync::Arc;

const ROWS: usize = 30;
const DIM: usize = 4;

fn number(i: usize, j: usize) -> f32 {
    (((i * 7 + j * 13 + 5) % 101) as f32 - 50.0) / 32.0
}

fn batch() -> RecordBatch {
    let ids = StringArray::from_iter_values((0..ROWS).map(|i| format!("app-{i}")));
    let mut list = ListBuilder::new(Float32Builder::new());
    let mut fixed = FixedSizeListBuilder::new(Float32Builder::new(), DIM as i32);
    let mut large = LargeListBuilder::new(Float64Builder::new());
    let mut genres = ListBuilder::new(StringBuilder::new());
    let mut developer = StringDictionaryBuilder::<Int32Type>::new();
    for i in 0..ROWS {
        for j in 0..DIM {
            list.values().append_value(number(i, j));
            large.values().append_value(number(i, j) as f64 / 3.0);
            if i % 7 == 3 {
                fixed.values().append_null();
            } else {
                fixed.values().append_value(number(i, j));
            }
        }
        list.append(i != 11);
        large.append(true);
        fixed.append(i % 7 != 3);
        match i % 5 {
            0 => genres.append(false),
            1 => genres.append(true),
            2 => {
                genres.values().append_value("a");
                genres.values().append_null();
                genres.append(true);
            }
            _ => {
                genres.values().append_value(format!("g{}", i % 3));
                genres.values().append_value("b");
                genres.append(true);
            }
        }
        if i % 4 == 0 {
            developer.append_null();
        } else {
            developer.append_value(format!("dev{}", i % 3));
        }
    }
    let some = |i: usize| i % 6 != 2;
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("app_id", Arc::new(ids)),
        ("embedding", Arc::new(list.finish())),
        ("large", Arc::new(large.finish())),
        ("fixed", Arc::new(fixed.finish())),
        ("genres", Arc::new(genres.finish())),
        ("developer", Arc::new(developer.finish())),
        ("free", Arc::new(BooleanArray::from_iter((0..ROWS).map(|i| some(i).then_some(i % 3 == 0))))),
        ("age", Arc::new(Int64Array::from_iter((0..ROWS).map(|i| some(i).then_some(i as i64 * 1_000_003 - 9_000_000))))),
        ("small", Arc::new(Int8Array::from_iter((0..ROWS).map(|i| some(i).then_some(i as i8 - 15))))),
        ("big", Arc::new(UInt64Array::from_iter((0..ROWS).map(|i| some(i).then_some(i as u64 * 7_777_777_777))))),
        ("price", Arc::new(Float64Array::from_iter((0..ROWS).map(|i| some(i).then_some(i as f64 / 7.0))))),
        ("rating", Arc::new(Float32Array::from_iter((0..ROWS).map(|i| some(i).then_some(i as f32 / 7.0))))),
        ("half", Arc::new(Float16Array::from_iter((0..ROWS).map(|i| some(i).then_some(half::f16::from_f32(i as f32 / 8.0)))))),
        ("money", Arc::new(Decimal128Array::from_iter((0..ROWS).map(|i| some(i).then_some(i as i128 * 12345 - 100_000))).with_precision_and_scale(12, 2).unwrap())),
        ("when", Arc::new(TimestampMicrosecondArray::from_iter((0..ROWS).map(|i| some(i).then_some(1_767_225_600_000_000 + i as i64 * 1_234_567))).with_timezone("UTC"))),
        ("day", Arc::new(Date32Array::from_iter((0..ROWS).map(|i| some(i).then_some(20_000 - i as i32))))),
        ("view", Arc::new(StringViewArray::from_iter((0..ROWS).map(|i| some(i).then_some("v".repeat(i)))))),
    ];
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, array)| (name, array, name != "app_id"))).unwrap()
}

fn main() {
    let folder = std::env::args().nth(1).expect("a folder");
    let codecs = [
        ("none", Compression::UNCOMPRESSED),
        ("snappy", Compression::SNAPPY),
        ("gzip", Compression::GZIP(Default::default())),
        ("brotli", Compression::BROTLI(Default::default())),
        ("lz4", Compression::LZ4),
        ("lz4_raw", Compression::LZ4_RAW),
        ("zstd", Compression::ZSTD(Default::default())),
    ];
    let batch = batch();
    for (name, codec) in codecs {
        for (version, writer) in [("v1", WriterVersion::PARQUET_1_0), ("v2", WriterVersion::PARQUET_2_0)] {
            let mut p = WriterProperties::builder().set_compression(codec).set_writer_version(writer).set_max_row_group_row_count(Some(17));
            if name == "none" || name == "zstd" {
                // what is not a dictionary's is encoded as differences or by streams of bytes
                p = p.set_dictionary_enabled(false)
                    .set_column_encoding(ColumnPath::from("app_id"), Encoding::DELTA_BYTE_ARRAY)
                    .set_column_encoding(ColumnPath::from("view"), Encoding::DELTA_LENGTH_BYTE_ARRAY)
                    .set_column_encoding(ColumnPath::from("age"), Encoding::DELTA_BINARY_PACKED)
                    .set_column_encoding(ColumnPath::from("price"), Encoding::BYTE_STREAM_SPLIT)
                    .set_column_encoding(ColumnPath::from("embedding.list.item"), Encoding::BYTE_STREAM_SPLIT);
            }
            if name == "snappy" {
                // pages after the dictionary is full
                p = p.set_dictionary_page_size_limit(24).set_write_batch_size(4).set_data_page_row_count_limit(4);
            }
            let file = std::fs::File::create(format!("{folder}/arrow-rs-{name}-{version}.parquet")).unwrap();
            let mut w = ArrowWriter::try_new(file, batch.schema(), Some(p.build())).unwrap();
            w.write(&batch).unwrap();
            w.close().unwrap();
        }
    }
}
