//! The documents: examples parse, links lead somewhere, references match the code, the text is short.
//!
//! Each check takes texts and returns its findings. It runs on the real documents, and on a planted
//! fault that it must find.

mod commands;
mod links;
mod references;
mod runbook;
mod words;
mod yaml;

use std::fs;
use std::path::{Path, PathBuf};

/// A text file of the repository.
pub(crate) struct Page {
    /// Its path from the root of the repository, with `/`.
    pub(crate) path: String,
    pub(crate) text: String,
}

/// A fenced block of a Markdown page.
pub(crate) struct Block {
    /// What follows the opening fence: the language, and perhaps more.
    pub(crate) info: String,
    /// The number of the first line of its text, from 1.
    pub(crate) line: usize,
    pub(crate) text: String,
}

pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A page that only a test has.
pub(crate) fn planted(path: &str, text: &str) -> Page {
    Page {
        path: path.to_owned(),
        text: text.to_owned(),
    }
}

pub(crate) fn page(path: &str) -> Page {
    let text = fs::read(root().join(path));
    let text = text.unwrap_or_else(|error| panic!("{path}: {error}"));
    Page {
        path: path.to_owned(),
        // Some files of the tests are wrong on purpose.
        text: String::from_utf8_lossy(&text).into_owned(),
    }
}

/// The text files below a folder with one of these endings. Build output and packages are left out.
pub(crate) fn pages_below(folder: &str, endings: &[&str]) -> Vec<Page> {
    let (mut pages, mut folders) = (Vec::new(), vec![PathBuf::from(folder)]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(root().join(&folder)).expect("a readable folder") {
            let entry = entry.expect("a readable entry");
            let (path, name) = (folder.join(entry.file_name()), entry.file_name());
            if entry.path().is_dir() {
                if name != "target" && name != "node_modules" {
                    folders.push(path);
                }
                continue;
            }
            let ending = path.extension().and_then(|ending| ending.to_str());
            if ending.is_some_and(|ending| endings.contains(&ending)) {
                pages.push(page(path.to_str().expect("UTF-8")));
            }
        }
    }
    pages.sort_by(|a, b| a.path.cmp(&b.path));
    pages
}

/// README.md and all pages of `docs/`.
pub(crate) fn documents() -> Vec<Page> {
    let mut pages = pages_below("docs", &["md"]);
    pages.push(page("README.md"));
    assert!(pages.len() > 5, "{}", pages.len());
    pages
}

impl Page {
    /// Its fenced blocks.
    pub(crate) fn blocks(&self) -> Vec<Block> {
        let (mut blocks, mut open): (Vec<Block>, Option<usize>) = (Vec::new(), None);
        for (number, line) in self.text.lines().enumerate() {
            let indent = line.len() - line.trim_start().len();
            match (line.trim_start().strip_prefix("```"), open) {
                (Some(info), None) => {
                    open = Some(indent);
                    blocks.push(Block {
                        info: info.trim().to_owned(),
                        line: number + 2,
                        text: String::new(),
                    });
                }
                (Some(_), Some(_)) => open = None,
                (None, Some(fence)) => {
                    let text = &mut blocks.last_mut().expect("an open block").text;
                    text.push_str(line.get(fence.min(indent)..).unwrap_or_default());
                    text.push('\n');
                }
                (None, None) => {}
            }
        }
        assert!(open.is_none(), "{}: a block does not end", self.path);
        blocks
    }

    /// Its lines without those of fenced blocks, each with its number from 1.
    pub(crate) fn prose(&self) -> Vec<(usize, &str)> {
        let mut inside = false;
        let mut prose = Vec::new();
        for (number, line) in self.text.lines().enumerate() {
            let is_fence = line.trim_start().starts_with("```");
            if is_fence {
                inside = !inside;
            } else if !inside {
                prose.push((number + 1, line));
            }
        }
        prose
    }
}

/// The code spans of a line of prose.
pub(crate) fn spans(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}

/// Fails with all findings, one a line.
#[track_caller]
pub(crate) fn assert_none(findings: &[String]) {
    assert!(findings.is_empty(), "\n{}", findings.join("\n"));
}

#[test]
fn blocks_are_read_with_their_indentation() {
    let text = "a\n```yaml one\nx: 1\n```\n- b\n  ```sh\n  ls\n    -l\n  ```\n";
    let page = planted("a.md", text);
    let blocks = page.blocks();
    assert_eq!(blocks.len(), 2);
    assert_eq!(
        (
            blocks[0].info.as_str(),
            blocks[0].line,
            blocks[0].text.as_str()
        ),
        ("yaml one", 3, "x: 1\n")
    );
    assert_eq!(blocks[1].text, "ls\n  -l\n");
    assert_eq!(page.prose(), [(1, "a"), (5, "- b")]);
}
