package main

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kvqbook/kvqbook/internal/asset"
	"github.com/kvqbook/kvqbook/internal/doctor"
)

// doctor says the same in lines and in JSON, and its exit status is what it says of what is needed.
func TestDoctor(t *testing.T) {
	needsXLA(t)
	t.Setenv(asKVQ, "1") // for the child that opens the device
	t.Setenv(asset.EnvCompiled, asset.Off)
	t.Setenv("HF_ENDPOINT", "http://127.0.0.1:1")
	t.Setenv("HF_TOKEN", "hf_secret")
	status, out, errs := runKVQ(t, "", "doctor", "--json")
	j := parse[doctorJSON](t, out)
	found := map[string]doctor.Finding{}
	ready := true
	for _, f := range j.Checks {
		found[f.Name] = f
		ready = ready && (f.State != doctor.Fails || !f.Needed)
	}
	if xla := found["XLA on the CPU"]; xla.State != doctor.OK || !strings.Contains(xla.Found, "ran a graph in") {
		t.Errorf("XLA's CPU plugin, which the tests run on: %+v", xla)
	}
	if hub := found["hub"]; hub.State != doctor.Absent || !strings.Contains(hub.Found, "refused") {
		t.Errorf("a hub that is not there: %+v", hub)
	}
	if want := map[bool]int{true: exitOK, false: exitFailure}[ready]; j.Ready != ready || status != want {
		t.Errorf("ready %t, status %d, %q; want %t, %d", j.Ready, status, errs, ready, want)
	}
	_, lines, _ := runKVQ(t, "", "doctor")
	if got := strings.Count(lines, "\n"); got != len(j.Checks) {
		t.Errorf("%d lines, want one for each of %d:\n%s", got, len(j.Checks), lines)
	}
	if strings.Contains(out+lines+errs, "hf_secret") {
		t.Errorf("the token was told:\n%s%s", out, lines)
	}
}

// A plugin that ends its process is a line, and the rest is looked at all the same.
func TestDoctorOutlivesAPlugin(t *testing.T) {
	gcc, err := exec.LookPath("gcc")
	if err != nil {
		t.Skip("no compiler to make such a plugin with")
	}
	dir := t.TempDir()
	plugin := filepath.Join(dir, "dies_cpu.so")
	c := exec.Command(gcc, "-shared", "-fPIC", "-o", plugin, "-x", "c", "-")
	c.Stdin = strings.NewReader("#include <stdio.h>\n#include <stdlib.h>\nvoid *GetPjrtApi(void) { fputs(\"no such instruction\\n\", stderr); abort(); }\n")
	if said, err := c.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, said)
	}
	t.Setenv(asKVQ, "1")
	t.Setenv(asset.EnvCPUPlugin, plugin)
	t.Setenv("HF_HUB_OFFLINE", "1")
	status, out, errs := runKVQ(t, "", "doctor")
	if status != exitFailure || !strings.Contains(errs, "not ready: ") || !strings.Contains(errs, "XLA on the CPU") {
		t.Errorf("status %d, %q", status, errs)
	}
	for _, want := range []string{"[fails]  XLA on the CPU", "the process that opened it ended: exit status 2; no such instruction; SIGABRT: abort. Cure", ": correct KVQ_PLUGIN_CPU, or unset it", "\n[ok]     proxy"} {
		if !strings.Contains(out, want) {
			t.Errorf("want %q:\n%s", want, out)
		}
	}
}
