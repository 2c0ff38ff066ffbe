package gx

// ForgetChecks has the next Check look again.
func ForgetChecks() { inspections.Clear() }
