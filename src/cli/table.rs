//! Aligned columns for people: texts to the left, numbers to the right, nothing at the end of a line.

use super::output;

/// Blanks between two columns.
const GAP: &str = "  ";

/// Rows under a line of headings.
#[derive(Debug, Clone)]
pub(super) struct Table {
    headings: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table without rows.
    pub(super) fn new(headings: &[&str]) -> Self {
        Self { headings: headings.iter().map(|heading| output::plain(heading)).collect(), rows: Vec::new() }
    }

    /// Adds a row; it has a cell for each heading.
    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().map(|cell| output::plain(&cell)).collect());
    }

    /// The lines, each with its line feed.
    pub(super) fn render(&self) -> String {
        let columns: Vec<Column> = self
            .headings
            .iter()
            .enumerate()
            .map(|(index, heading)| Column::of(heading, self.rows.iter().filter_map(|row| row.get(index))))
            .collect();
        let mut text = String::new();
        line(&mut text, &columns, self.headings.iter().map(String::as_str));
        for row in &self.rows {
            line(&mut text, &columns, row.iter().map(String::as_str));
        }
        text
    }
}

struct Column {
    width: usize,
    is_numeric: bool,
}

impl Column {
    fn of<'c>(heading: &str, cells: impl Iterator<Item = &'c String>) -> Self {
        let mut column = Self { width: heading.chars().count(), is_numeric: false };
        let (mut numbers, mut others) = (0, 0);
        for cell in cells {
            column.width = column.width.max(cell.chars().count());
            match cell.as_str() {
                "" | "-" => {}
                cell if cell.starts_with(|first: char| first.is_ascii_digit()) && is_number(cell) => {
                    numbers += 1
                }
                _ => others += 1,
            }
        }
        column.is_numeric = numbers > 0 && others == 0;
        column
    }
}

fn is_number(cell: &str) -> bool {
    let digits = cell.trim_end_matches(" s").trim_end_matches('%');
    digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
}

fn line<'c>(text: &mut String, columns: &[Column], cells: impl Iterator<Item = &'c str>) {
    let start = text.len();
    for (index, (column, cell)) in columns.iter().zip(cells).enumerate() {
        if index > 0 {
            text.push_str(GAP);
        }
        let blanks = column.width.saturating_sub(cell.chars().count());
        let pad = |text: &mut String| text.extend(std::iter::repeat_n(' ', blanks));
        if column.is_numeric {
            pad(text);
        }
        text.push_str(cell);
        if !column.is_numeric {
            pad(text);
        }
    }
    let end = text.trim_end_matches(' ').len().max(start);
    text.truncate(end);
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(headings: &[&str], rows: &[&[&str]]) -> String {
        let mut table = Table::new(headings);
        for row in rows {
            table.row(row.iter().map(|cell| (*cell).to_owned()));
        }
        table.render()
    }

    #[test]
    fn texts_stand_to_the_left_and_numbers_to_the_right() {
        let text = table(
            &["NAME", "LAG", "STATE"],
            &[&["matching", "7", "active"], &["search-indexer", "1200", "paused"], &["x", "-", ""]],
        );
        assert_eq!(
            text,
            "NAME             LAG  STATE\n\
             matching           7  active\n\
             search-indexer  1200  paused\n\
             x                  -\n"
        );
    }

    #[test]
    fn cells_are_as_wide_as_they_look_and_cannot_break_the_line() {
        assert_eq!(
            table(&["A", "B"], &[&["Zürich", "x"], &["a\nb", "y"]]),
            "A       B\nZürich  x\na\\nb    y\n"
        );
    }

    #[test]
    fn a_table_without_rows_is_its_headings() {
        assert_eq!(table(&["ID", "PRODUCT"], &[]), "ID  PRODUCT\n");
    }
}
