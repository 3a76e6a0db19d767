"""The record of a trial, the storage that keeps it, locks, and the table made of records."""
