// Package transform makes a component of the role `transform` of the program that imports it.
package transform

import millrace "github.com/millrace/millrace/sdk/go"

// Export makes what configure answers the plugin of this program. Call it once, in an init function.
func Export(info millrace.Info, configure func(millrace.Config) (millrace.Transform, error)) {
	millrace.ExportTransform(info, configure)
}
