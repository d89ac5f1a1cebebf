"""The HTTP edge: parse, authorise, open one transaction, call one action, render."""
