//! The figures as bars, in SVG.

use std::fmt::Write as _;

use crate::balancer::Balancer;
use crate::figures::{FIGURES, Figure, Spread, Table};

const WIDTH: f64 = 900.0;
const COLUMNS: usize = 3;
const PANEL: (f64, f64) = (WIDTH / 3.0, 190.0);
const BAR: f64 = 18.0;
const GAP: f64 = 8.0;
/// Where bars begin, and how long the longest may be.
const LEFT: f64 = 100.0;
const LONGEST: f64 = 125.0;

/// One panel for each cost that was measured: a bar is the median, its whisker from least to most.
pub(crate) fn svg(table: &Table) -> String {
    let panels: Vec<Figure> = FIGURES
        .into_iter()
        .filter(|figure| figure.cost && table.spread(figure.key, Balancer::Bowline).is_some())
        .collect();
    let height = panels.len().div_ceil(COLUMNS) as f64 * PANEL.1 + 10.0;
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#fff\"/>\n"
    );
    for (number, figure) in panels.into_iter().enumerate() {
        let left = (number % COLUMNS) as f64 * PANEL.0;
        let top = (number / COLUMNS) as f64 * PANEL.1;
        let _ = writeln!(text, "<g transform=\"translate({left} {top})\">");
        panel(&mut text, table, figure);
        text.push_str("</g>\n");
    }
    text.push_str("</svg>\n");
    text
}

fn panel(text: &mut String, table: &Table, figure: Figure) {
    // Writing to a String does not fail, here and below.
    let _ = writeln!(
        text,
        "<text x=\"12\" y=\"24\" font-weight=\"bold\">{}</text>",
        figure.title
    );
    let bars: Vec<(Balancer, Spread)> = table
        .balancers()
        .into_iter()
        .filter_map(|balancer| Some((balancer, table.spread(figure.key, balancer)?)))
        .collect();
    let full = scale(&bars);
    for (number, (balancer, spread)) in bars.into_iter().enumerate() {
        let top = 36.0 + number as f64 * (BAR + GAP);
        bar(text, top, full, balancer, spread, figure.digits);
    }
}

/// The value of the longest bar: no more than four times Bowline's, so that one peer that fell
/// behind does not make the others unreadable.
fn scale(bars: &[(Balancer, Spread)]) -> f64 {
    let most = bars.iter().map(|(_, spread)| spread.median);
    let ours = bars
        .iter()
        .find(|(balancer, _)| *balancer == Balancer::Bowline);
    let bound = ours.map_or(f64::MAX, |(_, spread)| spread.median * 4.0);
    most.fold(0.0, f64::max).min(bound).max(f64::MIN_POSITIVE)
}

fn bar(text: &mut String, top: f64, full: f64, balancer: Balancer, spread: Spread, digits: usize) {
    let length = |value: f64| (value / full).clamp(0.0, 1.0) * LONGEST;
    let color = if balancer == Balancer::Bowline {
        "#1f6f8b"
    } else {
        "#b8c4cc"
    };
    let cut = if spread.median > full { " →" } else { "" };
    let (middle, base) = (top + BAR / 2.0, top + BAR - 5.0);
    let (least, most) = (LEFT + length(spread.least), LEFT + length(spread.most));
    let _ = writeln!(
        text,
        "<text x=\"{:.1}\" y=\"{base:.1}\" text-anchor=\"end\">{balancer}</text>\n\
         <rect x=\"{LEFT}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{BAR}\" fill=\"{color}\"/>\n\
         <path d=\"M{least:.1} {middle:.1}H{most:.1}\" stroke=\"#333\"/>\n\
         <text x=\"{:.1}\" y=\"{base:.1}\">{:.digits$}{cut}</text>",
        LEFT - 6.0,
        length(spread.median),
        most.max(LEFT + length(spread.median)) + 5.0,
        spread.median,
    );
}
