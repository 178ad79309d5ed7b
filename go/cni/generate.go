package cni

//go:generate go -C ../dev run ./generate
