"""One sweep as a page: what a reader asks of it first, drawn and told from the stored rows."""
