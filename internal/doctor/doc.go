// Package doctor looks at a machine and says what of it is ready for this project, what fails, and
// the cure. It works where set-up was done in part, or not at all.
package doctor
