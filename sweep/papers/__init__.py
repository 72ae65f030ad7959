"""The four papers' tables: what they print (numbers/*.csv), how a sweep fills them (*.yaml), and both side by side."""
