//! The table for people, in Markdown, so that it can go into a document as it is.

use std::fmt::Write as _;

use crate::balancer::Balancer;
use crate::figures::{FIGURES, Figure, Spread, Table};

/// The figures, the ratios, and what went wrong.
pub(crate) fn text(table: &Table) -> String {
    let balancers = table.balancers();
    let mut text = String::from("\nMedian of the rounds (least–most):\n\n");
    head(&mut text, "", &balancers);
    for figure in FIGURES {
        row(&mut text, figure.title, &balancers, |balancer| {
            let spread = table.spread(figure.key, balancer)?;
            Some(cell(figure, spread))
        });
    }
    row(
        &mut text,
        "others on its core, % of the time",
        &balancers,
        |balancer| {
            let share = table.others(balancer)?;
            let [median, least, most] =
                [share.median, share.least, share.most].map(|it| it * 100.0);
            Some(format!("{median:.0} ({least:.0}–{most:.0})"))
        },
    );
    let peers: Vec<_> = balancers
        .into_iter()
        .filter(|balancer| *balancer != Balancer::Bowline)
        .collect();
    text.push_str("\nBowline divided by each, round by round; for a cost, below 1 is less:\n\n");
    head(&mut text, "", &peers);
    for figure in FIGURES {
        let title = if figure.cost {
            figure.title.to_owned()
        } else {
            format!("{} (above 1 is more)", figure.title)
        };
        row(&mut text, &title, &peers, |peer| {
            let ratio = table.ratio(figure.key, peer)?;
            Some(format!(
                "{:.2} ({:.2}–{:.2})",
                ratio.median, ratio.least, ratio.most
            ))
        });
    }
    faults(&mut text, table);
    text
}

fn cell(figure: Figure, spread: Spread) -> String {
    let digits = figure.digits;
    format!(
        "{:.digits$} ({:.digits$}–{:.digits$})",
        spread.median, spread.least, spread.most
    )
}

fn head(text: &mut String, first: &str, balancers: &[Balancer]) {
    let names: Vec<_> = balancers.iter().map(|balancer| balancer.name()).collect();
    let rule = vec!["---"; balancers.len() + 1].join("|");
    // Writing to a String does not fail, here and below.
    let _ = writeln!(text, "| {first} | {} |\n|{rule}|", names.join(" | "));
}

/// A row, unless all of its cells are empty.
fn row(
    text: &mut String,
    title: &str,
    balancers: &[Balancer],
    cell: impl Fn(Balancer) -> Option<String>,
) {
    let cells: Vec<_> = balancers.iter().map(|balancer| cell(*balancer)).collect();
    if cells.iter().any(Option::is_some) {
        let cells: Vec<_> = cells.into_iter().map(Option::unwrap_or_default).collect();
        let _ = writeln!(text, "| {title} | {} |", cells.join(" | "));
    }
}

fn faults(text: &mut String, table: &Table) {
    text.push_str(
        "\nFailed requests; requests at a node that did not make their session; \
         requests on an upstream connection that served another session before:\n\n",
    );
    let mut none = true;
    for ((column, balancer), fault) in &table.faults {
        if fault.failures + fault.misrouted + fault.shared > 0 {
            none = false;
            let _ = writeln!(
                text,
                "- {balancer}, {column}: {} failed, {} misrouted, {} shared{}",
                fault.failures,
                fault.misrouted,
                fault.shared,
                fault
                    .first
                    .as_ref()
                    .map_or(String::new(), |first| format!(" ({first})"))
            );
        }
    }
    if none {
        text.push_str("- none\n");
    }
}
