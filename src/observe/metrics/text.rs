//! From OpenMetrics text to the text format before it (0.0.4), for readers that know only that.

/// The same page as Prometheus text 0.0.4: a counter's family has the name of its samples, and
/// `UNIT` and `EOF` are not there.
pub(super) fn older(page: &str) -> String {
    let mut out = String::with_capacity(page.len());
    // HELP stands before TYPE, which says whether it needs another name.
    let mut help = "";
    for line in page.lines() {
        if let Some(text) = line.strip_prefix("# HELP ") {
            help = text;
            continue;
        }
        if let Some(text) = line.strip_prefix("# TYPE ") {
            let suffix = if text.ends_with(" counter") {
                "_total"
            } else {
                ""
            };
            for (keyword, text) in [("HELP", help), ("TYPE", text)] {
                if let Some((name, rest)) = text.split_once(' ') {
                    out.extend(["# ", keyword, " ", name, suffix, " ", rest, "\n"]);
                }
            }
            continue;
        }
        if line == "# EOF" || line.starts_with("# UNIT ") {
            continue;
        }
        out.extend([line, "\n"]);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_change_their_names_and_nothing_else_does() {
        let page = "# HELP a Some.\n# TYPE a counter\na_total{x=\"# EOF\"} 1\n\
            # HELP b_seconds Times.\n# TYPE b_seconds histogram\n# UNIT b_seconds seconds\n\
            b_seconds_sum 1.0\n# EOF\n";
        let expected = "# HELP a_total Some.\n# TYPE a_total counter\na_total{x=\"# EOF\"} 1\n\
            # HELP b_seconds Times.\n# TYPE b_seconds histogram\nb_seconds_sum 1.0\n";
        assert_eq!(older(page), expected);
    }
}
