/** Import this before TensorFlow.js: it keeps TensorFlow's own start-up notes off the terminal. */
process.env["TF_CPP_MIN_LOG_LEVEL"] ??= "2";
