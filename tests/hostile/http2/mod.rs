//! HTTP/2: the corpora once more, and the cases of RFC 9113 and RFC 7541 as raw frames.

mod conformance;
mod corpora;
mod frames;
