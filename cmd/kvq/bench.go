package main

import "github.com/kvqbook/kvqbook/internal/benchcmd"

func init() { register(benchcmd.New) }
