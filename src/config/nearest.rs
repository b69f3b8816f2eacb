//! The known word that a mistyped one was probably meant to be.

/// Longer words are not compared: no key is half as long.
const LONGEST: usize = 40;

/// The word of `known` that is nearest to `word`, if one is near enough for a slip of the hand.
pub(super) fn nearest<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    let (found, steps) = known
        .iter()
        .map(|candidate| (*candidate, distance(word, candidate)))
        .min_by_key(|(_, steps)| *steps)?;
    let allowed = (word.chars().count().min(found.len()) / 3).clamp(1, 3);
    (steps <= allowed).then_some(found)
}

/// Insertions, deletions, replacements and swaps of neighbours that lead from `a` to `b`.
fn distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().take(LONGEST + 1).collect();
    let b: Vec<char> = b.chars().collect();
    if a.len() > LONGEST || b.len() > LONGEST {
        return usize::MAX;
    }
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    rows[0] = (0..=b.len()).collect();
    for i in 1..=a.len() {
        rows[i][0] = i;
        for j in 1..=b.len() {
            let replace = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut steps = replace.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                steps = steps.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = steps;
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_finds_its_word() {
        let known = ["health", "listen", "limits"];
        assert_eq!(nearest("heatlh", &known), Some("health"));
        assert_eq!(nearest("limit", &known), Some("limits"));
        assert_eq!(nearest("Listen", &known), Some("listen"));
    }

    #[test]
    fn another_word_finds_none() {
        assert_eq!(nearest("tls", &["rise", "fall"]), None);
        assert_eq!(nearest("", &["rise"]), None);
        assert_eq!(nearest("x", &[]), None);
        assert_eq!(nearest(&"é".repeat(1000), &["rise"]), None);
    }

    #[test]
    fn a_swap_of_neighbours_is_one_step() {
        assert_eq!(distance("rsie", "rise"), 1);
        assert_eq!(distance("", "rise"), 4);
        assert_eq!(distance("rise", "rise"), 0);
    }
}
