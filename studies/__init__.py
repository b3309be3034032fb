"""Study scripts: each folder is a question, a task and a command."""
