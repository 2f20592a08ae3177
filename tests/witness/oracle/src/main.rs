//! Answers questions about files with Hugging Face's published crates, so that xetfs is not its own oracle.
//!
//! One JSON question a line on standard input, one JSON answer a line on standard output, in order:
//!
//! * `{"ask": "file", "chunks": [[hash, size], …]}` gives `{"file": …, "xorb": …}`: the ids of a file and of a xorb of these chunks.
//! * `{"ask": "proof", "chunks": …, "ranges": [[start, end], …]}` gives `{"proof": …}`: the answer of `/v2/file-chunk-hashes`.
//! * `{"ask": "fold", "parts": […]}` gives `{"root": …}`: the root over adjacent subtrees, or null where they do not make a whole.
//!   A part is a subtree as the wire has it, or `{"chunks": …, "at_start": …, "at_end": …}`.
//! * `{"ask": "chunk", "data": hex}` gives `{"hash": …}`.
//!
//! A question that cannot be answered gives `{"error": …}`. Ranges are half open; hashes are in the hexadecimal form of the wire.

use std::error::Error;
use std::io::{BufRead, Write, stdin, stdout};

use serde::Deserialize;
use serde_json::{Value, json};
use xet_client::cas_client::chunk_window_builder::build_file_chunk_hashes_response;
use xet_client::cas_types::FileRange;
use xet_core_structures::merklehash::{MerkleHash, MerkleHashSubtree, compute_data_hash, file_hash, xorb_hash};
use xet_core_structures::metadata_shard::file_structs::{FileDataSequenceEntry, MDBFileInfo};

type Chunks = Vec<(String, u64)>;

#[derive(Deserialize)]
#[serde(tag = "ask", rename_all = "lowercase")]
enum Question {
    File { chunks: Chunks },
    Proof { chunks: Chunks, ranges: Vec<(u64, u64)> },
    Fold { parts: Vec<Part> },
    Chunk { data: String },
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Part {
    Chunks { chunks: Chunks, at_start: bool, at_end: bool },
    Subtree(MerkleHashSubtree),
}

fn hashed(chunks: &Chunks) -> Result<Vec<(MerkleHash, u64)>, Box<dyn Error>> {
    chunks.iter().map(|(hash, size)| Ok((MerkleHash::from_hex(hash)?, *size))).collect()
}

/// A file that is one run of a xorb: the answer looks only at its size, and at verification entries, of which it has none.
fn one_run(chunks: &[(MerkleHash, u64)]) -> Result<MDBFileInfo, Box<dyn Error>> {
    let size: u64 = chunks.iter().map(|(_, size)| size).sum();
    Ok(MDBFileInfo {
        segments: vec![FileDataSequenceEntry {
            xorb_hash: MerkleHash::default(),
            xorb_flags: 0,
            unpacked_segment_bytes: u32::try_from(size)?,
            chunk_index_start: 0,
            chunk_index_end: u32::try_from(chunks.len())?,
        }],
        ..Default::default()
    })
}

fn answer(question: Question) -> Result<Value, Box<dyn Error>> {
    match question {
        Question::File { chunks } => {
            let chunks = hashed(&chunks)?;
            Ok(json!({"file": file_hash(&chunks).hex(), "xorb": xorb_hash(&chunks).hex()}))
        },
        Question::Proof { chunks, ranges } => {
            let chunks = hashed(&chunks)?;
            let ranges = ranges.iter().map(|(start, end)| FileRange::new(*start, *end)).collect();
            let proof = build_file_chunk_hashes_response(&one_run(&chunks)?, ranges, chunks)?;
            Ok(json!({"proof": proof}))
        },
        Question::Fold { parts } => {
            let mut subtrees = Vec::with_capacity(parts.len());
            for part in parts {
                subtrees.push(match part {
                    Part::Subtree(subtree) => subtree,
                    Part::Chunks { chunks, at_start, at_end } => {
                        MerkleHashSubtree::from_chunks(at_start, &hashed(&chunks)?, at_end)
                    },
                });
            }
            let root = MerkleHashSubtree::merge(&subtrees)?.final_hash().map(|root| root.hex());
            Ok(json!({"root": root}))
        },
        Question::Chunk { data } => {
            let bytes: Result<Vec<u8>, _> =
                (0..data.len()).step_by(2).map(|at| u8::from_str_radix(&data[at..at + 2], 16)).collect();
            Ok(json!({"hash": compute_data_hash(&bytes?).hex()}))
        },
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut out = stdout().lock();
    for line in stdin().lock().lines() {
        let question = serde_json::from_str::<Question>(&line?);
        let reply = question.map_err(Into::into).and_then(answer);
        writeln!(out, "{}", reply.unwrap_or_else(|error| json!({"error": error.to_string()})))?;
        out.flush()?;
    }
    Ok(())
}
