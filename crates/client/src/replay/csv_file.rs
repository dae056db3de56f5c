//! Commands from a CSV file, plain or gzipped, one row at a time.
//!
//! Columns, found by the header's names in any order: `time` (RFC 3339), `member`, `action`, `product`, `vendor`, `name`,
//! `price`, `quantity`. Further columns are ignored, so a `--sent` file can be replayed too. Each command is one line.

use std::io::BufRead;
use std::path::Path;
use std::sync::Arc;

use super::command::{Action, ActionKind, Command, Intended};
use super::rows::{self, Row, Rows};
pub use super::rows::{Error, Fault};

/// The columns, in the order of the data set.
pub const COLUMNS: [&str; 8] = ["time", "member", "action", "product", "vendor", "name", "price", "quantity"];

const TIME: usize = 0;
const MEMBER: usize = 1;
const ACTION: usize = 2;
const PRODUCT: usize = 3;
const VENDOR: usize = 4;
const NAME: usize = 5;
const PRICE: usize = 6;
const QUANTITY: usize = 7;

/// An iterator over the commands of a file. It ends after an error.
#[derive(Debug)]
pub struct CsvFile {
    rows: Rows,
    places: [usize; COLUMNS.len()],
    failed: bool,
}

impl CsvFile {
    /// Opens a file. Gzip is recognised by its first bytes, not by the name.
    ///
    /// # Errors
    /// If it can't be opened or its header lacks a column.
    pub fn open(path: &Path) -> Result<Self, Error> {
        Self::new(Rows::open(path)?)
    }

    /// Reads plain CSV.
    ///
    /// # Errors
    /// If the header can't be read or lacks a column.
    pub fn from_reader(reader: impl BufRead + 'static) -> Result<Self, Error> {
        Self::new(Rows::from_reader(reader)?)
    }

    fn new(rows: Rows) -> Result<Self, Error> {
        let mut places = [0; COLUMNS.len()];
        for (place, column) in places.iter_mut().zip(COLUMNS) {
            *place = rows.place(column)?;
        }
        Ok(Self { rows, places, failed: false })
    }

    pub(super) fn rows(&mut self) -> &mut Rows {
        &mut self.rows
    }
}

impl Iterator for CsvFile {
    type Item = Result<Command, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let places = self.places;
        let read = self.rows.next()?.and_then(|row| Fields { row, places }.command());
        self.failed = read.is_err();
        Some(read.map_err(|fault| Error::Line { line: self.rows.line(), fault }))
    }
}

/// A row by its columns.
struct Fields<'a> {
    row: &'a Row,
    places: [usize; COLUMNS.len()],
}

impl Fields<'_> {
    fn command(&self) -> Result<Command, Fault> {
        let word = self.field(ACTION);
        let kind = ActionKind::of_word(word).ok_or_else(|| Fault::Action(word.to_owned()))?;
        let at = rows::time(self.field(TIME))?;
        let action = match kind {
            ActionKind::Add => Action::Add {
                product: self.name(PRODUCT)?,
                vendor: self.name(VENDOR)?,
                name: self.name(NAME)?,
                price: rows::price(self.needed(PRICE)?)?.get(),
                quantity: rows::quantity(self.needed(QUANTITY)?)?,
            },
            ActionKind::Adjust => {
                Action::Adjust { product: self.name(PRODUCT)?, by: rows::quantity(self.needed(QUANTITY)?)? }
            }
            ActionKind::Remove => Action::Remove { product: self.name(PRODUCT)? },
            ActionKind::Checkout => Action::Checkout,
        };
        let member = Arc::from(self.name(MEMBER)?);
        Ok(Command { at, member, action, intended: Intended::Anything, reason: None })
    }

    fn field(&self, column: usize) -> &str {
        self.row.field(self.places[column])
    }

    fn needed(&self, column: usize) -> Result<&str, Fault> {
        match self.field(column) {
            "" => Err(Fault::Missing { action: self.field(ACTION).to_owned(), column: COLUMNS[column] }),
            value => Ok(value),
        }
    }

    fn name(&self, column: usize) -> Result<String, Fault> {
        rows::name(COLUMNS[column], self.needed(column)?)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;
    use rust_decimal::Decimal;

    use super::*;

    const HEADER: &str = "time,member,action,product,vendor,name,price,quantity\n";

    fn read(rows: &str) -> Vec<Result<Command, Error>> {
        let text = format!("{HEADER}{rows}");
        CsvFile::from_reader(std::io::Cursor::new(text)).expect("a good header").collect()
    }

    fn fault(rows: &str) -> String {
        let read = read(rows);
        let error = read.into_iter().next_back().expect("a row").expect_err("a bad row");
        error.to_string()
    }

    #[test]
    fn reads_each_action_exactly() {
        let rows = "2010-12-01T08:25:53Z,17850,add,85123A,851,\"HOLDER, WHITE\",0.001,6\n\
                    2010-12-01T08:26:00Z,17850,adjust,85123A,,,,-2\n\
                    2010-12-01T09:27:00.250+01:00,17850,remove,85123A,,,,\n\
                    2010-12-01T08:28:00Z,17850,checkout,,,,,\n";
        let commands: Vec<Command> = read(rows).into_iter().map(|row| row.expect("a good row")).collect();
        let product = || "85123A".to_owned();
        assert_eq!(
            commands[0].action,
            Action::Add {
                product: product(),
                vendor: "851".to_owned(),
                name: "HOLDER, WHITE".to_owned(),
                price: Decimal::new(1, 3),
                quantity: 6
            }
        );
        assert_eq!(commands[1].action, Action::Adjust { product: product(), by: -2 });
        assert_eq!(commands[2].action, Action::Remove { product: product() });
        assert_eq!(commands[2].at.to_rfc3339(), "2010-12-01T08:27:00.250+00:00");
        assert_eq!(commands[3].action, Action::Checkout);
        assert!(commands.iter().all(|command| &*command.member == "17850"));
    }

    #[test]
    fn names_each_invalid_row_with_its_line() {
        let good = "2010-12-01T08:25:53Z,1,checkout,,,,,\n";
        let cases = [
            ("2010-12-01T08:25:53Z,1,buy,,,,,\n", "line 3: action \"buy\" is not one of add, adjust, remove, checkout"),
            (
                "yesterday,1,checkout,,,,,\n",
                "line 3: time \"yesterday\": it is not a time such as 2010-12-01T08:25:53Z (RFC 3339)",
            ),
            ("2010-12-01T08:25:53Z,,checkout,,,,,\n", "line 3: checkout needs a member"),
            ("2010-12-01T08:25:53Z,1,remove,,,,,\n", "line 3: remove needs a product"),
            ("2010-12-01T08:25:53Z,1,adjust,A,,,,\n", "line 3: adjust needs a quantity"),
            ("2010-12-01T08:25:53Z,1,adjust,A,,,,1.5\n", "line 3: quantity \"1.5\" is not a whole number"),
            ("2010-12-01T08:25:53Z,1,add,A,,N,1,1\n", "line 3: add needs a vendor"),
            ("2010-12-01T08:25:53Z,1,add,A,V,,1,1\n", "line 3: add needs a name"),
            ("2010-12-01T08:25:53Z,1,add,A,V,N,,1\n", "line 3: add needs a price"),
            ("2010-12-01T08:25:53Z,1,add,A,V,N,-1,1\n", "line 3: price \"-1\": the price is negative"),
            ("2010-12-01T08:25:53Z,1,checkout\n", "line 3: the row has 3 fields, the header has 8"),
            ("2010-12-01T08:25:53Z,1,checkout,,,,,,\n", "line 3: the row has 9 fields, the header has 8"),
            (&format!("{}\n", ",".repeat(200)), "line 3: there are more than 100 columns"),
            (" \n", "line 3: the row has 1 fields, the header has 8"),
            ("2010-12-01T08:25:53Z,\"1,checkout,,,,,\n\n", "line 3: a quote is not closed; a value cannot span lines"),
            (
                "2010-12-01T08:25:53Z,1,add,A,V,\"two\r\nlines\",1,1\n",
                "line 3: a quote is not closed; a value cannot span lines",
            ),
            ("2010-12-01T08:25:53Z,1,add,A,V\t,N,1,1\n", "line 3: vendor \"V\\t\" has a control character"),
            ("2010-12-01T08:25:53Z,1,add,A,V,a\0,1,1\n", "line 3: name \"a\\0\" has a control character"),
            (
                "2017-12-31T23:59:60Z,1,checkout,,,,,\n",
                "line 3: time \"2017-12-31T23:59:60Z\": there was no leap second at that time",
            ),
        ];
        for (bad, expected) in cases {
            assert_eq!(fault(&format!("{good}{bad}")), expected);
        }
    }

    #[test]
    fn numbers_are_read_as_the_service_reads_them() {
        let add = |price: &str, quantity: &str| format!("2010-12-01T08:25:53Z,1,add,A,V,N,{price},{quantity}\n");
        for price in ["1_000", "1_", "_1", "1_0.5_0", "1e3x", "0x1", " 1", "\"1,5\"", "٣", "NaN"] {
            let fault = fault(&add(price, "1"));
            assert!(fault.starts_with("line 2: price ") && fault.contains("decimal number such as"), "{fault}");
        }
        for (price, reason) in [("0.00001", "4 decimal places"), ("1000000000", "above"), ("-0.01", "negative")] {
            assert!(fault(&add(price, "1")).contains(reason), "{price}");
        }
        for quantity in ["1_000", "+1", "1.5", "0.99999999999999999", "9223372036854775808", " 1", "1e400"] {
            assert_eq!(fault(&add("1", quantity)), format!("line 2: quantity {quantity:?} is not a whole number"));
        }
        for (price, quantity, expected) in [
            ("0.001", "6", (Decimal::new(1, 3), 6)),
            ("2.50", "2.0", (Decimal::new(25, 1), 2)),
            ("1e2", "-1", (Decimal::from(100), -1)),
        ] {
            let command = read(&add(price, quantity)).remove(0).expect("a good row");
            let Action::Add { price, quantity, .. } = command.action else { panic!("an add") };
            assert_eq!((price, quantity), expected);
        }
    }

    /// The same commands in files of other systems.
    #[test]
    fn line_ends_byte_order_marks_and_composition_make_no_difference() {
        let rows = "2010-12-01T08:25:53Z,Jos\u{e9},add,caf\u{e9},\u{c5}hus,\"th\u{e9}, vert\",1,1\n\
                    \n2010-12-01T08:26:00Z,Jos\u{e9},remove,caf\u{e9},,,,\n";
        let text = format!("{HEADER}{rows}");
        let decomposed = text.replace('\u{e9}', "e\u{301}").replace('\u{c5}', "A\u{30a}");
        assert_ne!(decomposed, text);
        let all = |text: String| -> Vec<Command> {
            let (plain, gzipped) = (TempFile::new(text.as_bytes()), TempFile::new(&gzip(&text)));
            let [plain, gzipped] = [plain, gzipped].map(|file| {
                CsvFile::open(&file.0).expect("a good header").collect::<Result<Vec<_>, _>>().expect("good rows")
            });
            assert_eq!(plain, gzipped);
            plain
        };
        let expected = all(text.clone());
        assert_eq!(expected.len(), 2);
        assert_eq!(&*expected[1].member, "Jos\u{e9}");
        for text in [text, decomposed] {
            for text in [text.clone(), text.replace('\n', "\r\n"), text.replace('\n', "\r"), text.trim_end().to_owned()]
            {
                assert_eq!(all(format!("\u{feff}{text}")), expected, "{text:?}");
                assert_eq!(all(format!("{}\r", text.trim_end())), expected, "{text:?}");
                assert_eq!(all(text.clone()), expected, "{text:?}");
            }
        }
    }

    #[test]
    fn names_the_line_that_is_not_utf8() {
        let text = [HEADER.as_bytes(), b"2010-12-01T08:25:53Z,1,remove,caf\xe9,,,,\n"].concat();
        let header = b"name,caf\xe9\n".to_vec();
        for (text, line) in [(text, 2), (header, 1)] {
            for bytes in [text.clone(), gzip_bytes(&text)] {
                let file = TempFile::new(&bytes);
                let read: Result<Vec<Command>, Error> = CsvFile::open(&file.0).and_then(Iterator::collect);
                let error = read.expect_err("Latin-1").to_string();
                assert!(error.starts_with(&format!("line {line}: the line is not UTF-8")), "{error}");
            }
        }
    }

    #[test]
    fn ends_after_an_invalid_row() {
        let rows = read("x,1,checkout,,,,,\n2010-12-01T08:25:53Z,1,checkout,,,,,\n");
        assert_eq!(rows.len(), 1);
    }

    #[test]
    fn names_a_missing_column() {
        let error = CsvFile::from_reader("time,member,action\n".as_bytes()).expect_err("columns are missing");
        assert_eq!(error.to_string(), "line 1: the header has no column \"product\"");
    }

    /// Removes its file when it is dropped.
    struct TempFile(std::path::PathBuf);

    impl TempFile {
        fn new(bytes: &[u8]) -> Self {
            let path = std::env::temp_dir().join(format!("client-{}.csv", uuid::Uuid::new_v4()));
            std::fs::write(&path, bytes).expect("a temporary file");
            Self(path)
        }
    }

    impl Drop for TempFile {
        fn drop(&mut self) {
            std::fs::remove_file(&self.0).unwrap_or_default();
        }
    }

    fn gzip_bytes(bytes: &[u8]) -> Vec<u8> {
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        gzip.write_all(bytes).expect("memory takes it");
        gzip.finish().expect("memory takes it")
    }

    fn gzip(text: &str) -> Vec<u8> {
        gzip_bytes(text.as_bytes())
    }

    #[test]
    fn recognises_gzip_by_its_content_and_rejects_a_truncated_file() {
        let row = "2010-12-01T08:25:53Z,1,checkout,,,,,\n";
        let bytes = gzip(&format!("{HEADER}{row}"));
        let read = |bytes: &[u8]| -> Result<Vec<Command>, Error> {
            CsvFile::open(&TempFile::new(bytes).0).and_then(Iterator::collect)
        };
        let more = gzip(row);
        for (file, count) in [
            (bytes.clone(), 1),
            ([&bytes[..], &[0; 1_000]].concat(), 1),
            ([&bytes[..], &more].concat(), 2),
            ([&bytes[..], &more, &[0]].concat(), 2),
        ] {
            assert_eq!(read(&file).expect("a good file").len(), count);
        }
        for bad in [&bytes[..bytes.len() - 9], &[&bytes[..], b"garbage"].concat()] {
            let error = read(bad).expect_err("a bad file");
            assert!(error.to_string().starts_with("line 3: reading failed: "), "{error}");
        }
    }

    #[test]
    fn skips_and_counts_the_rows_before_a_line() {
        let row = "2010-12-01T08:25:53Z,1,checkout,,,,,\n";
        let text = format!("{HEADER}{row}\nnot a row\n{row}{row}");
        for (line, skipped, left) in
            [(1, 0, None), (2, 0, None), (3, 1, None), (5, 2, Some(2)), (6, 3, Some(1)), (7, 4, Some(0))]
        {
            let mut file = CsvFile::from_reader(std::io::Cursor::new(text.clone())).expect("a good header");
            assert_eq!(file.rows().skip_to(line).expect("there is such a line"), skipped, "{line}");
            assert_eq!(file.collect::<Result<Vec<_>, _>>().ok().map(|rows| rows.len()), left, "{line}");
        }
        let mut file = CsvFile::from_reader(std::io::Cursor::new(text)).expect("a good header");
        let error = file.rows().skip_to(8).expect_err("too short").to_string();
        assert_eq!(error, "the run cannot start at line 8: the file has 6 lines");
    }

    #[test]
    fn reports_a_file_that_does_not_exist() {
        assert!(matches!(CsvFile::open(Path::new("/no/such.csv")), Err(Error::Open(_))));
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(2_000))]

        #[test]
        fn any_file_gives_commands_or_an_error(rows in r#"([0-9TZ:.\-]{0,22},m?,(add|adjust|remove|checkout|x)?,[a-z",]{0,9}\n?){0,5}"#, bytes: Vec<u8>) {
            // The first invalid row is the last one.
            let read = read(&rows);
            proptest::prop_assert!(read.iter().rev().skip(1).all(Result::is_ok));
            if let Ok(file) = CsvFile::from_reader(std::io::Cursor::new(bytes)) {
                drop(file.collect::<Vec<_>>());
            }
        }
    }
}
